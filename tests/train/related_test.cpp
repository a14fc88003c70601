// What a template's fields and an ontology add to training: fields left out by chance, cells of related types that are no negatives.
#include <gtest/gtest.h>

#include <bit>
#include <set>

#include "models/langcell/data/text_template.h"
#include "tests/train/small_corpus.h"
#include "train/step.h"

namespace lc::test {
namespace {

struct Kind {
  std::string type, tissue, disease, ontology_id;
};
const std::vector<Kind> kKinds = {{"T cell", "blood", "", "CL:0000084"},
                                  {"CD4-positive T cell", "blood", "asthma", "CL:0000624"},
                                  {"CD4-positive T cell", "liver", "", "CL:0000624"},
                                  {"T cell", "", "normal", "CL:0000084"},
                                  {"B cell", "blood", "", "CL:0000236"},
                                  {"of no ontology", "blood", "", ""}};

Tensor random_rows(std::int64_t rows, std::int64_t columns, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  for (float& v : values) v = normal(random);
  return Tensor::from<float>(values, {rows, columns});
}

std::string part(const std::string& title, const std::string& value) { return value.empty() ? "" : title + ": " + value + "."; }

std::filesystem::path write_kinds(const std::filesystem::path& path) {
  std::vector<Gene> genes;
  for (int i = 0; i < 60; ++i) genes.push_back({"ENSG" + std::to_string(1000000 + i), "G" + std::to_string(i), 1.0 + i % 7});
  CorpusSetup setup;
  setup.vocabulary = GeneVocabulary(genes), setup.ancestors = {{624, 84}};
  setup.texts.fields = {"cell_type", "tissue", "disease"};
  for (const Kind& k : kKinds) {
    LabelTexts label{k.type + k.tissue + k.disease,
                     {},
                     k.ontology_id,
                     {part("cell type", k.type), part("tissue", k.tissue), part("disease", k.disease)}};
    label.texts = {text_of_parts(label.parts)};
    setup.texts.labels.push_back(label);
  }
  CorpusWriter writer(path, std::move(setup));
  for (std::int32_t c = 0; c < 48; ++c) {
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 10 + c % 7; ++i) tokens.push_back(2 + (c * 7 + i * 11) % 60);
    writer.append({"cell" + std::to_string(c), tokens, c % static_cast<std::int32_t>(kKinds.size())});
  }
  writer.finish({48, 48, {}, {}}, {}, {});
  return path;
}

TEST(RelatedTypes, are_equal_or_one_a_kind_of_the_other_and_no_known_field_contradicts) {
  const TemporaryFolder folder;
  const Dataset data({write_kinds(folder / "c.h5")});
  ASSERT_TRUE(data.knows_types());
  const std::set<std::pair<int, int>> related = {{0, 1}, {0, 3}, {2, 3}};  // 1 and 3 differ in disease, 0 and 2 in tissue
  for (int a = 0; a < 6; ++a) {
    for (int b = 0; b < 6; ++b) {
      if (a == b) continue;
      EXPECT_EQ(data.related(a, b), related.contains({std::min(a, b), std::max(a, b)})) << a << ", " << b;
    }
  }
}

TEST(RelatedTypes, leave_the_denominator_and_the_draw_of_negatives) {
  ContrastBatch batch;
  batch.view_a = random_rows(4, 8, 1), batch.text = random_rows(4, 8, 2);
  for (int i = 0; i < 4; ++i) {
    batch.samples.push_back(i), batch.text_of.push_back(i), batch.group_of.push_back(10 + i), batch.text_owner.push_back(i);
  }
  const ContrastOptions options{.cell_cell = 0, .scale = 2, .chance = {{5, 6}}};
  const auto pair = [](std::int64_t g) { return (g - 10) / 2; };
  batch.related = [&](std::int64_t a, std::int64_t b) { return pair(a) == pair(b); };
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    ContrastOptions other = options;
    other.chance = {{seed, 7}};
    for (const MatchPair& p : contrast(batch, other).pairs) {
      if (p.label == 1) continue;
      EXPECT_NE(p.cell / 2, p.text / 2);
    }
  }
  const double with = contrast(batch, options).cell_text.item();
  ContrastOptions only_losses = options;
  only_losses.gradients = false;
  EXPECT_EQ(contrast(batch, only_losses).cell_text.item(), with);
  EXPECT_TRUE(contrast(batch, options).d_text && !contrast(batch, only_losses).d_text);
  const ContrastBatch first_two = [&] {
    ContrastBatch half = batch;
    half.view_a = batch.view_a.slice_rows(0, 2), half.text = batch.text.slice_rows(0, 2);
    half.samples.resize(2), half.text_of.resize(2), half.group_of.resize(2), half.text_owner.resize(2);
    return half;
  }();
  const Contrast none = contrast(first_two, options);
  EXPECT_EQ(none.cell_text.item(), 0);  // all others are related: nothing to tell apart
  EXPECT_EQ(none.skipped_negatives, 4);
  batch.related = {};
  EXPECT_LT(with, contrast(batch, options).cell_text.item());
}

TEST(FieldDropout, leaves_out_whole_fields_but_never_the_cell_type) {
  const TemporaryFolder folder;
  SmallModel m(write_kinds(folder / "c.h5"));
  std::int64_t dropped = 0, could = 0;
  for (std::uint32_t step = 0; step < 200; ++step) {
    for (std::int64_t cell = 0; cell < 48; ++cell) {
      const PhiloxKey chance = chance_of_step(1, 2, step);
      const TextChoice choice = m.data.text(cell, chance, 0.3);
      const Kind& kind = kKinds[static_cast<std::size_t>(cell) % kKinds.size()];
      EXPECT_EQ(choice.dropped & 1u, 0u);
      dropped += std::popcount(choice.dropped), could += !kind.tissue.empty() + !kind.disease.empty();
      std::vector<std::string> left = {part("cell type", kind.type), part("tissue", kind.tissue), part("disease", kind.disease)};
      for (std::size_t i = 0; i < left.size(); ++i) {
        if (choice.dropped >> i & 1u) {
          ASSERT_FALSE(left[i].empty());
          left[i].clear();
        }
      }
      ASSERT_EQ(m.data.text_tokens(choice), m.word_piece.encode(text_of_parts(left), 64).ids);
      ASSERT_EQ(m.data.text(cell, chance).dropped, 0u);
    }
  }
  EXPECT_NEAR(static_cast<double>(dropped) / static_cast<double>(could), 0.3, 0.02);
  const Dataset& data = m.data;
  const std::vector<std::int32_t> whole = data.text_tokens(TextChoice{1, 0});
  m.data.tokenize_texts(m.word_piece, 7);
  EXPECT_EQ(m.data.text_tokens(TextChoice{1, 4}).size(), 7u);  // cut where the model stops reading
  EXPECT_EQ(m.data.text_tokens(TextChoice{1, 4}).back(), whole.back());
}

TEST(FieldDropout, is_off_in_validation_and_changes_what_a_step_learns_from) {
  const TemporaryFolder folder;
  SmallModel m(write_kinds(folder / "c.h5"));
  const auto alone = comm_alone();
  StepRule rule;
  rule.stage = 2, rule.seed = 3, rule.mgm = 0, rule.cell_cell = 0, rule.cell_text = 1, rule.matching = 1;
  rule.related = RelatedTypes::ignore;
  Samples all(48);
  for (std::int64_t c = 0; c < 48; ++c) all[static_cast<std::size_t>(c)] = c;
  const auto loss = [&](double dropout, Update update) {
    rule.field_dropout = dropout;
    return Step(*m.model, m.data, *alone, rule).run(1, {all}, 0, update).loss;
  };
  EXPECT_EQ(loss(0, Update::losses_only), loss(0.5, Update::losses_only));
  EXPECT_NE(loss(0, Update::gradients_only), loss(0.5, Update::gradients_only));
}

}  // namespace
}  // namespace lc::test
