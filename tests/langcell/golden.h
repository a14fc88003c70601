// The published implementation's numbers (golden/tiny) as a model and arrays; see its README for what each is.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "engine/safetensors.h"
#include "models/langcell/data/batches.h"
#include "models/langcell/langcell.h"
#include "tests/support/test_data.h"

namespace lc::test {

class Golden {
 public:
  Golden() : folder_(converted_golden()), arrays_(folder_ / "golden.safetensors") {
    LangCellConfig c = preset("tiny", 25427, 30522);
    c.text.width = 96, c.text.heads = 3, c.text.ffn = 192;
    model_ = std::make_unique<LangCell>(c, LangCell::Parts{}, DType::f32);
    load("cell_bert/model.safetensors", "cell_bert."), load("text_bert/model.safetensors", "text_bert.");
    load("cell_proj.safetensors", "cell_proj."), load("text_proj.safetensors", "text_proj."), load("ctm_head.safetensors", "ctm_head.");
    for (const NamedParameter& p : model_->parameters().named()) {
      if (p.name.rfind("mgm_head.", 0) == 0) arrays_.read("losses/mgm_head/" + p.name.substr(9), {model_->parameters().master(p), static_cast<std::size_t>(p.shape.count())});
    }
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
  void load(const std::string& file, const std::string& prefix) {
    const SafetensorsReader reader(folder_ / "model" / file);
    for (const NamedParameter& p : model_->parameters().named()) {
      if (p.name.rfind(prefix, 0) == 0) reader.read(p.name.substr(prefix.size()), {model_->parameters().master(p), static_cast<std::size_t>(p.shape.count())});
    }
  }
  std::vector<std::int32_t> row(const std::string& name, std::int64_t width, std::int64_t i, const std::string& lengths) const {
    const auto all = ids(name);
    const auto begin = all.begin() + i * width;
    return {begin, begin + ids(lengths)[i]};
  }
  std::filesystem::path folder_;
  SafetensorsReader arrays_;
  std::unique_ptr<LangCell> model_;
};

inline double largest_difference(const std::vector<float>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0 : 1e30;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) worst = std::max(worst, std::abs(a[i] - b[i]));
  return worst;
}

}  // namespace lc::test
