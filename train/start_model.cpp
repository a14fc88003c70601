#include "train/start_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "engine/errors.h"
#include "engine/memory.h"
#include "models/langcell/data/word_piece_builder.h"
#include "models/langcell/pretrained/tower_weights.h"

namespace lc {
namespace {

class Start {
 public:
  Start(const Options& options, const Dataset& data, const Queue& queue) : options_(options), data_(data), queue_(queue) {
    result_.facts.genes = data.vocabulary();
    result_.facts.temperature = options.stage2.temperature;
  }

  void choose_sizes() {
    take_init();
    if (config_.cell.layers == 0) config_ = preset(options_.model.preset, data_.vocabulary().size(), 1);
    take_cell_model();
    if (!result_.text_loaded) config_.text = {};
    take_text_model();
    if (uses_text(options_) && config_.text.layers == 0) fresh_text_tower();
    config_.max_cell_tokens = static_cast<int>(options_.data.max_cell_tokens),
    config_.max_text_tokens = static_cast<int>(options_.data.max_text_tokens);
    require_room();
  }

  StartModel make(const std::function<void(const std::string&)>& say) {
    LangCell::Parts parts;
    parts.text = config_.text.layers > 0 ? LangCell::Part::required : LangCell::Part::absent;
    const bool masks =
        (options_.stage1.runs() && options_.stage1.objectives.mgm > 0) || (options_.stage2.runs() && options_.stage2.objectives.mgm > 0);
    parts.mgm_head = masks || init_masks_ ? LangCell::Part::required : LangCell::Part::absent;
    result_.model = std::make_unique<LangCell>(config_, parts, options_.train.precision == "bf16" ? DType::bf16 : DType::f32, queue_);
    LangCell& model = *result_.model;
    model.parameters().allocate_training();
    if (queue_.imagined()) return std::move(result_);
    model.parameters().initialize(static_cast<std::uint64_t>(options_.train.seed));
    if (!options_.model.init.empty()) read_weights(options_.model.init, model, Missing::keep);
    if (cell_files_) say(text_of(fill_tower(*cell_files_, TowerSource::geneformer, "cell_bert", model)));
    if (text_files_) say(text_of(fill_tower(*text_files_, TowerSource::text_bert, "text_bert", model)));
    model.parameters().refresh_storage();
    return std::move(result_);
  }

 private:
  void take_init() {
    const std::string& folder = options_.model.init;
    if (folder.empty()) return;
    LoadedModel init = load_model(folder);
    if (init.facts.genes.hash() != data_.vocabulary().hash())
      throw ModelError(fmt::format("{}: its genes differ from the corpus's; tokenize with its genes.tsv", folder));
    config_ = init.config(), result_.facts.word_piece = init.facts.word_piece, result_.facts.history = init.facts.history;
    result_.cell_loaded = true, result_.text_loaded = init.model->has_text(), init_masks_ = init.model->has_mgm_head();
    if (result_.text_loaded && !options_.model.text_vocab.empty())
      throw UsageError("model.text_vocab: model.init brings the vocabulary of its text tower; give one of the two");
  }
  void take_cell_model() {
    const std::string& folder = options_.model.cell_model;
    if (folder.empty()) return;
    if (result_.cell_loaded) throw UsageError("model.cell_model: model.init brings a cell tower already; give one of the two");
    cell_files_ = TensorFiles::of_folder(folder);
    config_.cell = read_tower(folder, *cell_files_, TowerSource::geneformer);
    if (config_.cell.vocabulary != data_.vocabulary().size()) {
      throw ModelError(fmt::format(
          "{}: its gene table has {} rows with <cls>, the corpus {} tokens; tokenize with the genes this model was trained with", folder,
          config_.cell.vocabulary, data_.vocabulary().size()));
    }
    result_.cell_loaded = true;
    result_.facts.history.push_back("cell tower started from a Geneformer");
  }
  void take_text_model() {
    const std::string& folder = options_.model.text_model;
    if (folder.empty()) return;
    if (result_.text_loaded) throw UsageError("model.text_model: model.init brings a text tower already; give one of the two");
    if (!uses_text(options_)) throw UsageError("model.text_model: no stage trains with texts; leave it out, or run stage 2");
    text_files_ = TensorFiles::of_folder(folder);
    config_.text = read_tower(folder, *text_files_, TowerSource::text_bert);
    config_.text.cross_width = config_.cell.width;
    const std::string vocabulary = options_.model.text_vocab.empty() ? folder + "/vocab.txt" : options_.model.text_vocab;
    result_.facts.word_piece = WordPiece::read(vocabulary);
    result_.facts.word_piece.require_fits(config_.text.vocabulary, vocabulary);
    result_.text_loaded = true;
    result_.facts.history.push_back("text tower started from a BERT");
  }
  void fresh_text_tower() {  // also beside a cell tower that was loaded alone
    if (data_.texts().empty())
      throw UsageError(
          "stage2: cell_text and matching need texts, and the corpus has none; tokenize with --texts and --label-key, or set their weights "
          "to 0");
    WordPiece& pieces = result_.facts.word_piece;
    if (pieces.size() == 0)
      pieces = options_.model.text_vocab.empty() ? build_word_piece(data_.texts()) : WordPiece::read(options_.model.text_vocab);
    config_.text = preset(options_.model.preset, data_.vocabulary().size(), pieces.size()).text;
    if (config_.text.layers == 0)
      throw UsageError(
          fmt::format("stage2: preset {} has no text tower; set stage2.steps = 0, or choose another preset", options_.model.preset));
    config_.text.cross_width = config_.cell.width;
  }
  void require_room() const {
    if (uses_text(options_) && data_.texts().empty())
      throw UsageError(
          "stage2: cell_text and matching need texts, and the corpus has none; tokenize with --texts and --label-key, or set their weights "
          "to 0");
    if (options_.data.max_cell_tokens > config_.cell.positions)
      throw UsageError(fmt::format("data.max_cell_tokens: wanted at most the {} positions of the cell tower, got {}",
                                   config_.cell.positions, options_.data.max_cell_tokens));
    if (config_.text.layers > 0 && options_.data.max_text_tokens > config_.text.positions) {
      throw UsageError(fmt::format("data.max_text_tokens: wanted at most the {} positions of the text tower, got {}",
                                   config_.text.positions, options_.data.max_text_tokens));
    }
    for (const int stage : {1, 2}) {
      const Objectives& o = options_.stage(stage).objectives;
      if (config_.projection > 0 || !options_.stage(stage).runs() || (o.cell_cell <= 0 && o.cell_text <= 0 && o.matching <= 0)) continue;
      throw UsageError(fmt::format(
          "stage{}.objectives: preset {} has no projection, so only mgm can be trained; set the others to 0 (and stage2.steps = 0)", stage,
          config_.preset));
    }
  }

  const Options& options_;
  const Dataset& data_;
  const Queue queue_;
  LangCellConfig config_;
  std::optional<TensorFiles> cell_files_, text_files_;
  StartModel result_;
  bool init_masks_ = false;  // the model to start from has a head for masked genes: it is kept, trained or not
};

}  // namespace

bool uses_text(const Options& o) { return o.stage2.runs() && (o.stage2.objectives.cell_text > 0 || o.stage2.objectives.matching > 0); }

StartModel start_model(const Options& options, Dataset& data, const Queue& queue, const std::function<void(const std::string&)>& say,
                       const std::function<void(const std::string&)>& warn) {
  Start start(options, data, queue);
  start.choose_sizes();
  StartModel started = start.make(say);
  const WordPiece& pieces = started.facts.word_piece;
  if (pieces.size() == 0) return started;
  const int longest = started.model->config().max_text_tokens;
  const std::vector<std::string> cut = data.tokenize_texts(pieces, longest);
  if (const std::string unknown = unknown_warning(pieces, data.texts()); !unknown.empty()) warn(unknown);
  if (!cut.empty())
    warn(fmt::format("the texts of {} labels are longer than data.max_text_tokens = {} and are cut there: {}", cut.size(), longest,
                     fmt::join(cut, ", ")));
  return started;
}

}  // namespace lc
