#include "models/langcell/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>

#include "engine/errors.h"

namespace lc {
namespace {

TowerConfig cell_tower(int layers, int width, int heads, int ffn) {
  TowerConfig t;
  t.layers = layers, t.width = width, t.heads = heads, t.ffn = ffn, t.activation = kernels::Activation::relu;
  t.hidden_dropout = t.attention_dropout = 0.02f, t.positions = 2048, t.types = 2;
  return t;
}

TowerConfig text_tower(int layers, int width, int heads, int ffn, int cross_width) {
  TowerConfig t;
  t.layers = layers, t.width = width, t.heads = heads, t.ffn = ffn, t.activation = kernels::Activation::gelu;
  t.hidden_dropout = t.attention_dropout = 0.1f, t.positions = 512, t.cross_width = cross_width;
  return t;
}

struct Preset {
  const char* name;
  TowerConfig cell, text;
  int projection;
  Initialisation initialisation;
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> all = {
      {"tiny", cell_tower(2, 64, 2, 128), text_tower(2, 64, 2, 128, 64), 32, Initialisation::fan_in},
      {"small", cell_tower(4, 256, 4, 512), text_tower(2, 256, 4, 512, 256), 128, Initialisation::fan_in},
      {"langcell", cell_tower(12, 512, 8, 1024), text_tower(12, 768, 12, 3072, 512), 256, Initialisation::fixed},
      {"geneformer-6l", cell_tower(6, 256, 4, 512), {}, 0, Initialisation::fixed},
      {"geneformer-12l", cell_tower(12, 512, 8, 1024), {}, 0, Initialisation::fixed},
  };
  return all;
}

}  // namespace

float deviation(Initialisation initialisation, int fan_in) {
  return initialisation == Initialisation::fan_in ? 1.0f / std::sqrt(static_cast<float>(fan_in)) : 0.02f;
}

const std::vector<std::string>& preset_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> n;
    for (const Preset& p : presets()) n.push_back(p.name);
    return n;
  }();
  return names;
}

LangCellConfig preset(const std::string& name, std::int64_t cell_vocabulary, std::int64_t text_vocabulary) {
  for (const Preset& p : presets()) {
    if (name != p.name) continue;
    LangCellConfig c;
    c.preset = name, c.cell = p.cell, c.text = p.text, c.projection = p.projection, c.initialisation = p.initialisation;
    c.cell.vocabulary = cell_vocabulary;
    c.text.vocabulary = c.text.layers ? text_vocabulary : 0;
    return c;
  }
  throw UsageError(fmt::format("model.preset: '{}' is not a preset; choose one of {}", name, fmt::join(preset_names(), ", ")));
}

void require_valid(const LangCellConfig& config) {
  const auto tower = [](const char* name, const TowerConfig& t) {
    if (t.layers == 0) return;
    const int head = t.heads > 0 ? t.width / t.heads : 0;
    if (head * t.heads != t.width || (head != 32 && head != 64 && head != 128)) {
      throw ModelError(fmt::format("{}: wanted a head width of 32, 64 or 128, got width {} with {} heads", name, t.width, t.heads));
    }
    if (t.layers < 0 || t.ffn <= 0 || t.positions <= 0 || t.vocabulary <= 0) {
      throw ModelError(fmt::format("{}: wanted positive sizes, got {} layers, ffn {}, {} positions, vocabulary {}", name, t.layers, t.ffn,
                                   t.positions, t.vocabulary));
    }
  };
  tower("cell_bert", config.cell);
  tower("text_bert", config.text);
  if (config.cell.layers == 0) throw ModelError("cell_bert: wanted a cell tower, got none");
  if (config.text.layers > 0 && config.text.cross_width != config.cell.width) {
    throw ModelError(fmt::format("text_bert: wanted cross-attention over the cell tower's width {}, got {}", config.cell.width,
                                 config.text.cross_width));
  }
}

}  // namespace lc
