// (a) encode: z of all views and of each distinct text   (b) contrast: losses and dz over the global batch, negatives
// (c) each micro-batch again with a tape, seeded with its dz, adds masked genes and matching   then: sum over ranks, clip, AdamW.
#include "train/step.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>

#include "engine/errors.h"
#include "engine/machine.h"
#include "engine/tape.h"
#include "models/langcell/data/batches.h"
#include "train/reducer.h"

namespace lc {
namespace {

// While it lives, parameters record on a tape; whatever happens, they do not keep it.
class Attached {
 public:
  Attached(Parameters& parameters, Tape* tape) : parameters_(parameters) { parameters_.attach(tape); }
  ~Attached() { parameters_.attach(nullptr); }
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

 private:
  Parameters& parameters_;
};

}  // namespace

struct Step::MicroBatch {
  std::int64_t first = 0, count = 0;            // its samples within the global batch
  std::int64_t first_text = 0, text_count = 0;  // its distinct texts: those whose first owner is here
  Tokens view_a, view_b, masked, texts;
  Tensor masked_rows, labels;  // of the pass that is masked
};

struct Step::GlobalBatch {
  ContrastBatch ids;                                       // sample, text and group numbers of all ranks; z is filled in by (b)
  std::vector<TextChoice> texts;                           // (D) in the order of their first owners
  std::vector<MicroBatch> micro;                           // of this rank
  double masked_tokens = 0;                                // over all ranks
  std::vector<std::int64_t> cells_of_rank, texts_of_rank;  // how many; a text is its first owner's
  std::int64_t tokens = 0;
  double data_seconds = 0;
};

struct Step::Encoded {
  Tensor hidden_a, hidden_masked, z_a, z_b, z_text;
  std::vector<Seed> seeds;
};

PassOptions Step::options(bool training) const {
  PassOptions o;
  if (training) o.chance = chance_;
  o.activations = rule_.activations;
  return o;
}

StepResult Step::run(std::uint32_t number, const std::vector<Samples>& micro_batches, float lr, Update update) {
  return finish(begin(number, micro_batches, lr, update));
}

PendingStep Step::begin(std::uint32_t number, const std::vector<Samples>& micro_batches, float lr, Update update) {
  Parameters& parameters = model_.parameters();
  update_ = update;
  chance_ = chance_of_step(rule_.seed, rule_.stage, number);
  const bool training = update != Update::losses_only;
  GlobalBatch batch = assemble(micro_batches);
  const bool once = batch.micro.size() == 1;  // then (a) is recorded and (c) has nothing to repeat

  // (a)
  auto tape = std::make_unique<Tape>();
  if (training) parameters.zero_gradients();
  const Attached attached(parameters, training && once ? tape.get() : nullptr);
  std::vector<Encoded> encoded;
  for (const MicroBatch& m : batch.micro) {
    encoded.push_back(encode(m, training && once ? tape.get() : nullptr));
    if (training && !once) encoded.back().hidden_a = encoded.back().hidden_masked = {};  // (c) makes them again
  }

  // (b)
  const Contrast c = contrast_of(batch, encoded);
  PendingStep step;
  step.number = number, step.samples = batch.ids.samples, step.masked_tokens = batch.masked_tokens;
  step.cell_cell = c.cell_cell, step.cell_cell_pairs = c.cell_cell_pairs;
  step.cell_text = c.cell_text, step.cell_text_pairs = c.cell_text_pairs, step.cell_text_entropy = c.cell_text_entropy;
  step.match_pairs = static_cast<double>(c.pairs.size());
  step.known.tokens = batch.tokens, step.known.data_seconds = batch.data_seconds;
  step.known.skipped_negatives = c.skipped_negatives, step.known.one_group_only = c.one_group_only;

  // (c)
  Reducer reducer(parameters, ranks_, rule_.least_slice);
  for (std::size_t i = 0; i < batch.micro.size(); ++i) {
    Encoded e = std::move(encoded[i]);
    if (training && !once) {
      tape = std::make_unique<Tape>();
      parameters.attach(tape.get());
      e = encode(batch.micro[i], tape.get());
    }
    objectives(batch, batch.micro[i], c, e, step);
    if (!training) continue;
    if (i + 1 == batch.micro.size()) reducer.follow(*tape);  // until then gradients still grow
    tape->backward(e.seeds);
  }
  if (!training) return step;
  reducer.finish();
  step.gradient_norm = Tensor::scalar(0, queue());
  const Tensor clip_factor = Tensor::scalar(1, queue());
  parameters.gradient_norm(rule_.clip, step.gradient_norm, clip_factor);
  if (queue().device == Device::cpu) step.result = finish(step);  // elsewhere the optimiser itself leaves everything as it is
  if (update == Update::optimiser) parameters.adamw(lr, rule_.weight_decay, number + 1, clip_factor);
  return step;
}

StepResult Step::finish(const PendingStep& step) {
  if (step.result) return *step.result;
  StepResult r = step.known;
  if (step.gradient_norm)
    r.gradient_norm = step.gradient_norm.item();  // first: what failed on the GPUs until here is thrown by the sum below
  std::vector<double> totals(3 + static_cast<std::size_t>(ranks_.size()));  // behind the sums: which rank's own were not finite
  totals[2] = static_cast<double>(r.tokens);
  for (const Tensor& sum : step.mgm) totals[0] += sum.item();
  for (const Tensor& sum : step.matching) totals[1] += sum.item();
  totals[3 + static_cast<std::size_t>(ranks_.rank())] = !std::isfinite(totals[0] + totals[1]);
  ranks_.all_reduce_sum(std::span<double>(totals));
  r.tokens = static_cast<std::int64_t>(totals[2]);
  if (rule_.mgm > 0 && step.masked_tokens > 0) r.mgm = totals[0] / step.masked_tokens;
  if (step.match_pairs > 0) r.matching = totals[1] / step.match_pairs;
  if (step.cell_cell) r.cell_cell = step.cell_cell.item() / step.cell_cell_pairs;
  if (step.cell_text) r.cell_text = step.cell_text.item() / step.cell_text_pairs - step.cell_text_entropy;
  for (const auto& [weight, loss] :
       {std::pair{rule_.mgm, r.mgm}, {rule_.cell_cell, r.cell_cell}, {rule_.cell_text, r.cell_text}, {rule_.matching, r.matching}}) {
    if (weight > 0 && loss) r.loss += weight * *loss;
  }
  if (!step.gradient_norm) return r;
  require_finite(step, r, std::span(totals).subspan(3));
  return r;
}

// Everything that is known before a number is computed: who is in the batch, which text belongs to whom, which genes are masked.
Step::GlobalBatch Step::assemble(const std::vector<Samples>& micro_batches) {
  const double start = seconds_now();
  GlobalBatch batch;
  std::vector<std::int64_t> own;
  for (const Samples& s : micro_batches) own.insert(own.end(), s.begin(), s.end());
  const std::vector<std::int64_t> all = ranks_.all_gather_rows(std::span<const std::int64_t>(own));
  batch.cells_of_rank =
      ranks_.all_gather_rows(std::span<const std::int64_t>(std::vector<std::int64_t>{static_cast<std::int64_t>(own.size())}));
  const std::vector<std::int64_t> owners = choose_texts(all, batch);
  const auto texts_before = [&](std::int64_t cell) { return std::ranges::lower_bound(owners, cell) - owners.begin(); };
  std::int64_t at = 0, first = 0;
  for (int r = 0; r < ranks_.size(); ++r) {
    const std::int64_t end = at + batch.cells_of_rank[static_cast<std::size_t>(r)];
    batch.texts_of_rank.push_back(texts_before(end) - texts_before(at));
    if (r == ranks_.rank()) first = at;
    at = end;
  }
  for (const Samples& samples : micro_batches) {
    MicroBatch m;
    m.first = first, m.count = std::ssize(samples);
    first += m.count;
    m.first_text = texts_before(m.first), m.text_count = texts_before(first) - m.first_text;
    upload_views(samples, m, batch);
    batch.micro.push_back(std::move(m));
  }
  ranks_.all_reduce_sum(std::span<double>(&batch.masked_tokens, 1));
  batch.data_seconds = seconds_now() - start;
  return batch;
}

// Which text each cell of the global batch takes this time, and the distinct ones in the order of their owners: of the cells with a text
// the one with the smallest sample number. Returns the owners' places, ascending.
std::vector<std::int64_t> Step::choose_texts(const std::vector<std::int64_t>& cells, GlobalBatch& batch) const {
  ContrastBatch& ids = batch.ids;
  std::map<TextChoice, std::int64_t> owner;
  std::vector<TextChoice> text(cells.size());
  const double field_dropout = update_ == Update::losses_only ? 0 : rule_.field_dropout;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    ids.samples.push_back(static_cast<std::uint64_t>(cells[i]));
    if (rule_.cells_need_text()) text[i] = data_.text(cells[i], chance_, field_dropout);
    ids.group_of.push_back(text[i].text < 0 ? -1 : data_.group(cells[i]));
    if (text[i].text < 0) continue;
    const auto [at, fresh] = owner.emplace(text[i], static_cast<std::int64_t>(i));
    if (!fresh && cells[i] < cells[static_cast<std::size_t>(at->second)]) at->second = static_cast<std::int64_t>(i);
  }
  if (rule_.related == RelatedTypes::ignore && data_.knows_types()) {
    ids.related = [this](std::int64_t a, std::int64_t b) {
      return data_.related(static_cast<std::int32_t>(a), static_cast<std::int32_t>(b));
    };
  }
  std::vector<std::int64_t> places;
  for (const auto& [t, place] : owner) places.push_back(place);
  std::ranges::sort(places);
  std::map<TextChoice, std::int32_t> index_of;
  for (const std::int64_t place : places) {
    const TextChoice& t = text[static_cast<std::size_t>(place)];
    index_of[t] = static_cast<std::int32_t>(batch.texts.size());
    batch.texts.push_back(t), ids.text_owner.push_back(ids.samples[static_cast<std::size_t>(place)]);
  }
  for (const TextChoice& t : text) ids.text_of.push_back(t.text < 0 ? -1 : index_of[t]);
  return places;
}

// The passes of one micro-batch, as the device wants them. Adds to the batch's tokens and masked tokens.
void Step::upload_views(const Samples& samples, MicroBatch& m, GlobalBatch& batch) const {
  const Sequences a = data_.sequences(samples, rule_.max_cell_tokens, Pass::view_a);
  Sequences b = a, c = a, texts;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const auto number = static_cast<std::uint64_t>(samples[i]);
    b.packing.keys[i] = sequence_key(Pass::view_b, number), c.packing.keys[i] = sequence_key(Pass::masked, number);
  }
  for (std::int64_t t = m.first_text; t < m.first_text + m.text_count; ++t)
    texts.add(data_.text_tokens(batch.texts[t]), sequence_key(Pass::text, batch.ids.text_owner[t]));
  const MaskRule rule{rule_.mask_rate, chance_, data_.vocabulary().size()};
  const bool shared = rule_.masked_pass == StepRule::MaskedPass::view_b;
  const auto put = [&](const Sequences& s) {
    batch.tokens += std::ssize(s.ids);
    return upload(s, Purpose::training, queue());
  };
  if (rule_.cell_cell > 0 || rule_.cells_need_text()) m.view_a = put(a);
  if (rule_.mgm > 0) {
    const MaskedSequences chosen = mask_genes(shared ? b : c, rule);
    m.masked = put(chosen.sequences);
    m.masked_rows = Tensor::from(chosen.rows, queue()), m.labels = Tensor::from(chosen.labels, queue());
    batch.masked_tokens += static_cast<double>(chosen.rows.size());
  }
  if (rule_.cell_cell > 0 && !(shared && rule_.mgm > 0)) m.view_b = put(b);
  if (m.text_count > 0) m.texts = put(texts);
}

Step::Encoded Step::encode(const MicroBatch& m, Tape* tape) const {
  const PassOptions pass = options(update_ != Update::losses_only);
  Encoded e;
  if (m.view_a.packing) {
    e.hidden_a = model_.encode_cells(m.view_a, pass);
    e.z_a = model_.cell_embedding(e.hidden_a, m.view_a);
  }
  if (m.view_b.packing) e.z_b = model_.cell_embedding(model_.encode_cells(m.view_b, pass), m.view_b);
  const bool masked_is_view_b = rule_.masked_pass == StepRule::MaskedPass::view_b && rule_.cell_cell > 0;
  if (m.masked.packing && (masked_is_view_b || tape || update_ == Update::losses_only)) {
    e.hidden_masked = model_.encode_cells(m.masked, pass);
    if (masked_is_view_b) e.z_b = model_.cell_embedding(e.hidden_masked, m.masked);
  }
  if (m.texts.packing) e.z_text = model_.text_embedding(model_.encode_texts(m.texts, pass), m.texts);
  return e;
}

// z (rows, columns) of all micro-batches and ranks, end to end; rank r has rows_of_rank[r] of them. Nobody waits for a GPU.
static Tensor gather(Communicator& ranks, const std::vector<Tensor>& parts, const std::vector<std::int64_t>& rows_of_rank,
                     std::int64_t columns, const Queue& queue) {
  if (ranks.size() == 1) return Tensor::stacked(parts);
  const auto own = rows_of_rank.begin() + ranks.rank();
  std::vector<Tensor> all = {Tensor::zeros({std::accumulate(rows_of_rank.begin(), own, std::int64_t{0}), columns}, DType::f32, queue)};
  all.insert(all.end(), parts.begin(), parts.end());
  all.push_back(Tensor::zeros({std::accumulate(own + 1, rows_of_rank.end(), std::int64_t{0}), columns}, DType::f32, queue));
  const Tensor z = Tensor::stacked(all);
  if (z.rows() == 0) return {};
  std::vector<std::int64_t> counts;
  for (const std::int64_t rows : rows_of_rank) counts.push_back(rows * columns);
  ranks.all_gather_on(queue, {z.data<float>(), static_cast<std::size_t>(z.rows() * columns)}, counts);
  return z;
}

Contrast Step::contrast_of(const GlobalBatch& batch, const std::vector<Encoded>& encoded) const {
  const auto all = [&](auto member, const std::vector<std::int64_t>& rows_of_rank) {
    std::vector<Tensor> parts;
    for (const Encoded& e : encoded) parts.push_back(e.*member);
    return gather(ranks_, parts, rows_of_rank, model_.config().projection, queue());
  };
  ContrastBatch z = batch.ids;
  if (rule_.cell_cell > 0 || rule_.cells_need_text()) z.view_a = all(&Encoded::z_a, batch.cells_of_rank);
  if (rule_.cell_cell > 0) z.view_b = all(&Encoded::z_b, batch.cells_of_rank);
  if (rule_.cells_need_text()) z.text = all(&Encoded::z_text, batch.texts_of_rank);
  const auto own = batch.cells_of_rank.begin() + ranks_.rank();
  return contrast(z, {.cell_cell = rule_.cell_cell,
                      .cell_text = rule_.cell_text,
                      .matching = rule_.matching,
                      .scale = 1 / rule_.temperature,
                      .gradients = update_ != Update::losses_only,
                      .same_text = rule_.same_text,
                      .chance = chance_,
                      .first = std::accumulate(batch.cells_of_rank.begin(), own, std::int64_t{0}),
                      .count = *own,
                      .gather = [this](const std::vector<std::int64_t>& drawn) { return ranks_.all_gather_rows(drawn); }});
}

// Masked genes and matching of one micro-batch, and the seeds of its backward.
void Step::objectives(const GlobalBatch& batch, const MicroBatch& m, const Contrast& c, Encoded& e, PendingStep& step) const {
  const PassOptions pass = options(update_ != Update::losses_only);
  const auto seed = [&](const Tensor& of, const Tensor& gradient) {
    if (of && of.tape() && gradient) e.seeds.push_back({of, gradient});
  };
  const auto rows = [](const Tensor& t, std::int64_t first, std::int64_t count) {
    return t && count > 0 ? t.slice_rows(first, count) : Tensor();
  };
  seed(e.z_a, rows(c.d_view_a, m.first, m.count));
  seed(e.z_b, rows(c.d_view_b, m.first, m.count));
  seed(e.z_text, rows(c.d_text, m.first_text, m.text_count));

  if (rule_.mgm > 0 && m.masked_rows.columns() > 0) {
    const Tensor loss = masked_gene_loss(model_, e.hidden_masked, m.masked_rows, m.labels);
    step.mgm.push_back(loss.detached());
    seed(loss, Tensor::scalar(static_cast<float>(rule_.mgm / batch.masked_tokens), queue()));
  }

  Sequences texts;
  std::vector<std::int32_t> labels;
  for (const MatchPair& p : c.pairs) {
    if (p.cell < m.first || p.cell >= m.first + m.count) continue;
    texts.add(data_.text_tokens(batch.texts[p.text]), p.key, static_cast<std::int32_t>(p.cell - m.first));
    labels.push_back(p.label);
  }
  if (labels.empty()) return;
  const Tokens pairs = upload(texts, Purpose::training, queue());
  const Tensor loss = matching_loss(model_, model_.cross_states(e.hidden_a, m.view_a), pairs, Tensor::from(labels, queue()), pass);
  step.matching.push_back(loss.detached());
  seed(loss, Tensor::scalar(rule_.matching / static_cast<float>(c.pairs.size()), queue()));
}

void Step::require_finite(const PendingStep& step, const StepResult& r, std::span<const double> rank_failed) const {
  if (std::isfinite(r.gradient_norm) && std::isfinite(r.loss)) return;
  std::vector<std::size_t> where;
  for (std::size_t k = 0; k < rank_failed.size(); ++k) {
    if (rank_failed[k] > 0) where.push_back(k);
  }
  const bool several = rank_failed.size() > 1;
  const std::string ranks = !several                             ? ""
                            : where.size() == rank_failed.size() ? ", on every rank"
                            : where.empty()                      ? ", on no rank alone"
                                                                 : fmt::format(", on rank {}", fmt::join(where, ", "));
  std::string losses;
  for (const auto& [name, value] :
       {std::pair{"mgm", r.mgm}, {"cell_cell", r.cell_cell}, {"cell_text", r.cell_text}, {"matching", r.matching}}) {
    if (value) losses += fmt::format("{} {}, ", name, *value);
  }
  constexpr std::ptrdiff_t kShown = 16;
  const std::span shown(step.samples.data(), static_cast<std::size_t>(std::min(std::ssize(step.samples), kShown)));
  const std::string more = std::ssize(step.samples) > kShown ? fmt::format(" … ({} in all)", step.samples.size()) : "";
  throw NumericalError(
      fmt::format("stage {}, step {}{}: {}gradient norm {}; samples {}{}; this step changed nothing: lower the learning rate, or look with "
                  "--check-finite",
                  rule_.stage, step.number + 1, ranks, losses, r.gradient_norm, fmt::join(shown, " "), more));
}

}  // namespace lc
