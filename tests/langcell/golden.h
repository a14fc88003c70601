// The published implementation's numbers (golden/tiny): its torch files through our own import, its arrays; its README says what each is.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "models/langcell/data/batches.h"
#include "models/langcell/langcell.h"
#include "models/langcell/pretrained/tower_weights.h"
#include "tests/support/test_data.h"

namespace lc::test {

class Golden {
 public:
  explicit Golden(DType storage = DType::f32) : arrays_(converted_golden()) {
    const std::filesystem::path folder = data("golden/tiny/model");
    const TensorFiles cell = TensorFiles::of_folder(folder / "cell_bert"), text = TensorFiles::of_folder(folder / "text_bert");
    LangCellConfig c = preset("tiny", 25427, 30522);
    c.cell = read_tower(folder / "cell_bert", cell, TowerSource::langcell),
    c.text = read_tower(folder / "text_bert", text, TowerSource::langcell);
    model_ = std::make_unique<LangCell>(c, LangCell::Parts{}, storage);
    fill_tower(cell, TowerSource::langcell, "cell_bert", *model_), fill_tower(text, TowerSource::langcell, "text_bert", *model_);
    for (const char* head : {"cell_proj", "text_proj", "ctm_head"})
      fill_head(TensorFiles::of_file(folder / (std::string(head) + ".bin")), head, *model_);
    for (const NamedParameter& p : model_->parameters().named()) {
      if (p.name.rfind("mgm_head.", 0) == 0)
        arrays_.read("losses/mgm_head/" + p.name.substr(9), {model_->parameters().master(p), static_cast<std::size_t>(p.shape.count())});
    }
    model_->parameters().refresh_storage();
  }
  LangCell& model() { return *model_; }
  const SafetensorsReader& arrays() const { return arrays_; }
  std::vector<double> numbers(const std::string& name) const {
    const StoredTensor& t = arrays_.at(name);
    if (t.type == StoredType::f64) return arrays_.values<double>(name);
    if (t.type == StoredType::i64) {
      const auto v = arrays_.values<std::int64_t>(name);
      return {v.begin(), v.end()};
    }
    std::vector<float> v(t.elements());
    arrays_.read(name, v);
    return {v.begin(), v.end()};
  }
  double number(const std::string& name) const { return numbers(name).at(0); }
  std::vector<std::int64_t> ids(const std::string& name) const { return arrays_.values<std::int64_t>(name); }
  std::vector<std::int32_t> cell(std::int64_t i) const { return row("tokens/cell_tokens", 2048, i, "tokens/cell_lengths"); }
  std::vector<std::int32_t> text(std::int64_t i) const { return row("tokens/text_tokens", 512, i, "tokens/text_lengths"); }

  Tokens cells(const std::vector<std::int64_t>& which) const {
    Sequences s;
    for (const std::int64_t c : which) s.add(cell(c), static_cast<std::uint64_t>(c));
    return upload(s, Purpose::training);
  }
  Tokens texts(const std::vector<std::int64_t>& which) const {
    Sequences s;
    for (const std::int64_t t : which) s.add(text(t), static_cast<std::uint64_t>(t));
    return upload(s, Purpose::training);
  }

 private:
  std::vector<std::int32_t> row(const std::string& name, std::int64_t width, std::int64_t i, const std::string& lengths) const {
    const auto all = ids(name);
    const auto begin = all.begin() + i * width;
    return {begin, begin + ids(lengths)[i]};
  }
  SafetensorsReader arrays_;
  std::unique_ptr<LangCell> model_;
};

inline double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : 1e30;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace lc::test
