#include "models/langcell/pretrained/export.h"

#include <map>

#include "models/langcell/folder_config.h"
#include "models/langcell/pretrained/torch_writer.h"

namespace lc {

void export_bundle(const std::filesystem::path& path, const LoadedModel& model, Existing existing) {
  namespace fs = std::filesystem;
  AtomicFolder folder(path, existing);
  const fs::path& to = folder.partial_path();
  const LangCell& m = *model.model;
  std::map<fs::path, std::vector<TensorToPickle>> files;
  std::vector<HostNumbers> held;
  for (const NamedParameter& p : m.parameters().named()) {
    const std::size_t dot = p.name.find('.');
    const std::string part = p.name.substr(0, dot);
    held.push_back(m.parameters().numbers(m.parameters().master(p), p));
    files[part.ends_with("_bert") ? fs::path(part) / "pytorch_model.bin" : fs::path(part + ".bin")].push_back(
        {p.name.substr(dot + 1), stored_shape(p.shape), held.back().values});
  }
  for (const auto& [file, tensors] : files) {
    if (file.has_parent_path()) {
      fs::create_directories(to / file.parent_path());
      write_bert_config(to / file.parent_path() / "config.json", file.parent_path() == "cell_bert" ? m.config().cell : m.config().text);
    }
    write_torch(to / file, tensors);
  }
  if (m.has_text()) model.facts.word_piece.write(to / "text_bert" / "vocab.txt");
  model.facts.genes.write(to / "genes.tsv");
  folder.commit();
}

}  // namespace lc
