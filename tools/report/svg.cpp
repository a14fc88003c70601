// Line charts, the confusion map and scatter plots. One frame (axes, ticks, grid) serves the charts.
#include "tools/report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace lc::report {
namespace {

// Paul Tol's "muted" scheme, ordered so that neighbours differ in lightness; sand is darkened for a white page.
constexpr std::array<const char*, 9> kColors = {"#332288", "#cc6677", "#44aa99", "#b8a13a", "#882255",
                                                "#5fb0d9", "#117733", "#aa4499", "#808020"};
constexpr const char* kInk = "#24292f";
constexpr const char* kMuted = "#6b7280";
constexpr const char* kGrid = "#e5e7eb";
constexpr const char* kNone = "#b4b8bd";
constexpr double kEm = 6.1;  // mean width of a character at 11 px

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void take(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  void widen(double share) {
    if (low > high) low = 0, high = 1;
    if (high - low < 1e-12 * std::max({std::abs(high), std::abs(low), 1e-300})) low -= 0.5, high += 0.5;
    const double pad = (high - low) * share;
    low -= pad;
    high += pad;
  }
};

struct Frame {
  Range x, y;
  double left, top, right, bottom;  // of the plotting area
  double at_x(double v) const { return left + (v - x.low) / (x.high - x.low) * (right - left); }
  double at_y(double v) const { return bottom - (v - y.low) / (y.high - y.low) * (bottom - top); }
};

std::string open_svg(double width, double height, const std::string& title) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0f} {:.0f}\" width=\"{:.0f}\" height=\"{:.0f}\" role=\"img\" "
      "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"11\" fill=\"{}\">\n<title>{}</title>\n",
      width, height, width, height, kInk, escaped(title));
}

std::string text(double x, double y, const std::string& attributes, std::string_view words) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escaped(words));
}

double width_of(std::string_view words) {
  return kEm * static_cast<double>(std::ranges::count_if(
                   words, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));  // UTF-8 code points
}

std::string number(double v) {
  if (v != 0 && (std::abs(v) >= 1e6 || std::abs(v) < 1e-3)) return fmt::format("{:.2g}", v);
  return fmt::format("{:.10g}", v);
}

// All ticks of an axis with the decimals their step needs.
std::vector<std::string> tick_texts(const std::vector<double>& ticks) {
  std::vector<std::string> texts;
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 1;
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
  for (double tick : ticks) {
    const double rounded = std::abs(tick) < step * 1e-6 ? 0.0 : tick;
    texts.push_back(decimals > 4 || std::abs(tick) >= 1e6 ? fmt::format("{:.3g}", rounded) : fmt::format("{:.{}f}", rounded, decimals));
  }
  return texts;
}

std::string axes(const Frame& f, const std::string& x_label, const std::string& y_label) {
  std::string out;
  const auto y_ticks = axis_ticks(f.y.low, f.y.high, 5), x_ticks = axis_ticks(f.x.low, f.x.high, 6);
  const auto y_texts = tick_texts(y_ticks), x_texts = tick_texts(x_ticks);
  for (size_t k = 0; k < y_ticks.size(); ++k) {
    const double y = f.at_y(y_ticks[k]);
    out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", f.left, f.right, y, y, kGrid);
    out += text(f.left - 6, y + 3.5, fmt::format("text-anchor=\"end\" fill=\"{}\"", kMuted), y_texts[k]);
  }
  for (size_t k = 0; k < x_ticks.size(); ++k) {
    const double x = f.at_x(x_ticks[k]);
    out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x, x, f.bottom, f.bottom + 4,
                       kMuted);
    out += text(x, f.bottom + 16, fmt::format("text-anchor=\"middle\" fill=\"{}\"", kMuted), x_texts[k]);
  }
  out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", f.left, f.right, f.bottom, f.bottom,
                     kMuted);
  out += text((f.left + f.right) / 2, f.bottom + 33, fmt::format("text-anchor=\"middle\" fill=\"{}\"", kMuted), x_label);
  const double middle = (f.top + f.bottom) / 2;
  out += text(12, middle, fmt::format("text-anchor=\"middle\" fill=\"{}\" transform=\"rotate(-90 12 {:.1f})\"", kMuted, middle), y_label);
  return out;
}

std::string heading(const std::string& title) { return text(0, 13, "font-size=\"13\" font-weight=\"600\"", title); }

std::string series_path(const Frame& f, const Series& s) {
  const size_t n = std::min(s.x.size(), s.y.size());
  std::string out;
  if (s.stroke == Stroke::points) {
    for (size_t i = 0; i < n; ++i) {
      if (!std::isfinite(s.y[i])) continue;
      out += fmt::format(
          "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.2\" fill=\"#fff\" stroke=\"{}\" stroke-width=\"1.6\"><title>{}: {} at "
          "{}</title></circle>\n",
          f.at_x(s.x[i]), f.at_y(s.y[i]), s.color, escaped(s.name), number(s.y[i]), number(s.x[i]));
    }
    return out;
  }
  std::string path;
  bool drawing = false;
  for (size_t i = 0; i < n; ++i) {
    if (!std::isfinite(s.y[i])) {
      drawing = false;
      continue;
    }
    path += fmt::format("{}{:.1f} {:.1f}", drawing ? "L" : "M", f.at_x(s.x[i]), f.at_y(s.y[i]));
    drawing = true;
  }
  if (path.empty()) return out;
  const bool faint = s.stroke == Stroke::faint;
  return fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" stroke-linejoin=\"round\"/>\n",
                     path, s.color, faint ? 1.0 : 2.0, faint ? 0.3 : 1.0);
}

std::string chart_legend(const LineChart& chart, const Frame& f) {
  std::string out;
  double x = f.right;
  for (size_t k = chart.series.size(); k-- > 0;) {
    const Series& s = chart.series[k];
    if (s.name.empty()) continue;
    x -= width_of(s.name);
    out += text(x, 13, fmt::format("fill=\"{}\"", kMuted), s.name);
    if (s.stroke == Stroke::points) {
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"9\" r=\"3.2\" fill=\"#fff\" stroke=\"{}\" stroke-width=\"1.6\"/>\n", x - 9, s.color);
    } else {
      out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"9\" y2=\"9\" stroke=\"{}\" stroke-width=\"2\" stroke-opacity=\"{}\"/>\n",
                         x - 19, x - 5, s.color, s.stroke == Stroke::faint ? 0.4 : 1.0);
    }
    x -= 32;
  }
  return out;
}

// Circle, square, triangle, diamond: beyond nine categories colours repeat with the next shape.
std::string marker(size_t category, double x, double y, double size) {
  const std::string fill = category_color(category);
  switch (category / kColors.size() % 4) {
    case 0:
      return fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\"", x, y, size, fill);
    case 1:
      return fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"", x - size, y - size, 2 * size,
                         2 * size, fill);
    case 2:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}h{:.1f}z\" fill=\"{}\"", x, y - 1.3 * size, 1.2 * size, 2.2 * size,
                         -2.4 * size, fill);
    default:
      return fmt::format("<path d=\"M{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}l{:.1f} {:.1f}z\" fill=\"{}\"", x, y - 1.4 * size, 1.2 * size,
                         1.4 * size, -1.2 * size, 1.4 * size, -1.2 * size, -1.4 * size, fill);
  }
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

struct Placed {
  double x, y;
  size_t category;
};

// Names at the categories' medians, pushed apart downwards until none covers another.
std::string names_at_medians(const Scatter& chart, const Frame& f) {
  std::vector<Placed> placed;
  for (size_t c = 0; c < chart.categories.size(); ++c) {
    std::vector<double> xs, ys;
    for (size_t i = 0; i < chart.x.size(); ++i) {
      if (chart.category[i] != static_cast<int>(c) || !std::isfinite(chart.x[i]) || !std::isfinite(chart.y[i])) continue;
      xs.push_back(chart.x[i]);
      ys.push_back(chart.y[i]);
    }
    if (xs.empty()) continue;
    const double half = width_of(chart.categories[c]) / 2;
    placed.push_back({std::clamp(f.at_x(median(xs)), f.left + half, std::max(f.left + half, f.right - half)), f.at_y(median(ys)), c});
  }
  std::ranges::stable_sort(placed, {}, &Placed::y);
  std::string out;
  for (size_t i = 0; i < placed.size(); ++i) {
    for (size_t pass = 0; pass < i; ++pass) {
      for (size_t j = 0; j < i; ++j) {
        const double wide = (width_of(chart.categories[placed[i].category]) + width_of(chart.categories[placed[j].category])) / 2 + 4;
        if (std::abs(placed[i].x - placed[j].x) < wide && std::abs(placed[i].y - placed[j].y) < 14) placed[i].y = placed[j].y + 14;
      }
    }
    out += text(placed[i].x, std::min(placed[i].y + 4, f.bottom - 3),
                "text-anchor=\"middle\" font-weight=\"600\" stroke=\"#fff\" stroke-width=\"3.5\" stroke-linejoin=\"round\" "
                "paint-order=\"stroke\" pointer-events=\"none\"",
                chart.categories[placed[i].category]);
  }
  return out;
}

// White to deep blue, even steps for the eye; the ink turns white where the shade is dark.
std::string shade(double share) {
  const double t = std::clamp(share, 0.0, 1.0);
  auto mix = [t](double from, double to) { return static_cast<int>(std::lround(from + (to - from) * std::pow(t, 0.8))); };
  return fmt::format("#{:02x}{:02x}{:02x}", mix(250, 20), mix(251, 66), mix(253, 122));
}

}  // namespace

std::string escaped(std::string_view words) {
  std::string out;
  for (char c : words) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') {
          out += "\xEF\xBF\xBD";
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string category_color(size_t category) { return kColors[category % kColors.size()]; }

std::vector<double> axis_ticks(double low, double high, size_t about) {
  const double rough = (high - low) / static_cast<double>(std::max<size_t>(about, 1));
  if (!(rough > 0) || !std::isfinite(rough)) return {};
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  const double step = power * (rough / power < 1.5 ? 1 : rough / power < 3.5 ? 2 : rough / power < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k) ticks.push_back(k * step);
  return ticks;
}

std::string line_chart(const LineChart& chart) {
  Frame f{{}, {}, 58, 26, chart.width - 10, chart.height - 40};
  for (const auto& s : chart.series) {
    for (size_t i = 0; i < std::min(s.x.size(), s.y.size()); ++i) {
      f.x.take(s.x[i]);
      f.y.take(s.y[i]);
    }
  }
  f.x.take(chart.x_from);
  f.x.take(chart.x_to);
  f.x.widen(0.0);
  f.y.widen(0.05);
  std::string out = open_svg(chart.width, chart.height, chart.title) + heading(chart.title) + axes(f, chart.x_label, chart.y_label);
  for (const auto& m : chart.marks) {
    const double x = f.at_x(m.x);
    out += fmt::format("<line x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-dasharray=\"3 3\"/>\n", x, x,
                       f.top, f.bottom, kMuted);
    out += text(x + 4, f.top + 9, fmt::format("fill=\"{}\"", kMuted), m.text);
  }
  for (const auto& s : chart.series) out += series_path(f, s);
  return out + chart_legend(chart, f) + "</svg>\n";
}

std::string confusion_map(const ConfusionMap& map) {
  const size_t n = map.labels.size();
  double longest = 4 * kEm;
  for (const auto& label : map.labels) longest = std::max(longest, width_of(label));
  const double cell = n <= 12 ? 46 : n <= 24 ? 30 : 16, left = longest * 1.06 + 44, top = 24;
  const double side = cell * static_cast<double>(n), slanted = longest * 0.72 + 14;
  std::string out = open_svg(left + side + slanted, top + side + slanted + 22, "Confusion matrix");
  out += text(left, 14, fmt::format("fill=\"{}\"", kMuted), "shade: share of the true class");
  for (size_t t = 0; t < n; ++t) {
    const double y = top + cell * static_cast<double>(t);
    out += text(left - 8, y + cell / 2 + 4, "text-anchor=\"end\"", map.labels[t]);
    for (size_t p = 0; p < n; ++p) {
      const double x = left + cell * static_cast<double>(p);
      const size_t count = map.counts[t][p];
      const double share = map.support[t] > 0 ? static_cast<double>(count) / static_cast<double>(map.support[t]) : 0;
      out += fmt::format(
          "<g><title>true {}, labelled {}: {} of {} ({:.1f} %)</title><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
          "fill=\"{}\" stroke=\"#fff\"/>",
          escaped(map.labels[t]), escaped(map.labels[p]), count, map.support[t], 100 * share, x, y, cell, cell, shade(share));
      if (count > 0 && cell >= 30) {
        out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"{}\"{}>{}</text>", x + cell / 2, y + cell / 2 + 4,
                           share > 0.45 ? "#fff" : kInk, t == p ? " font-weight=\"600\"" : "", count);
      }
      out += "</g>\n";
    }
  }
  for (size_t p = 0; p < n; ++p) {
    const double x = left + cell * (static_cast<double>(p) + 0.5), y = top + side + 14;
    out += text(x - 4, y, fmt::format("transform=\"rotate(45 {:.1f} {:.1f})\"", x - 4, y), map.labels[p]);
  }
  out += text(12, top + side / 2,
              fmt::format("text-anchor=\"middle\" fill=\"{}\" transform=\"rotate(-90 12 {:.1f})\"", kMuted, top + side / 2), "truth");
  out += text(left - 8, top + side + 16, fmt::format("text-anchor=\"end\" fill=\"{}\"", kMuted), "label");
  return out + "</svg>\n";
}

std::string scatter(const Scatter& chart) {
  Frame f{{}, {}, 46, 26, chart.width - 8, chart.height - 40};
  for (size_t i = 0; i < chart.x.size(); ++i) {
    f.x.take(chart.x[i]);
    f.y.take(chart.y[i]);
  }
  f.x.widen(0.04);
  f.y.widen(0.04);
  std::string out = open_svg(chart.width, chart.height, chart.title) + heading(chart.title) + axes(f, chart.x_label, chart.y_label);
  const double size = chart.x.size() > 3000 ? 1.8 : chart.x.size() > 800 ? 2.4 : 3.0;
  for (int pass = 0; pass < 2; ++pass) {
    out += fmt::format("<g fill-opacity=\"{}\">\n", pass == 0 ? 0.6 : 0.75);
    for (size_t i = 0; i < chart.x.size(); ++i) {
      if ((chart.category[i] < 0) != (pass == 0) || !std::isfinite(chart.x[i]) || !std::isfinite(chart.y[i])) continue;
      const double x = f.at_x(chart.x[i]), y = f.at_y(chart.y[i]);
      const std::string point = pass == 0 ? fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" fill=\"{}\"", x, y, size, kNone)
                                          : marker(static_cast<size_t>(chart.category[i]), x, y, size);
      out += chart.tooltips.empty() ? point + "/>\n" : fmt::format("<g><title>{}</title>{}/></g>\n", escaped(chart.tooltips[i]), point);
    }
    out += "</g>\n";
  }
  return out + names_at_medians(chart, f) + "</svg>\n";
}

std::string category_legend(const std::vector<std::string>& categories) {
  std::string out = "<ul class=\"legend\">\n";
  for (size_t c = 0; c < categories.size(); ++c) {
    out += fmt::format("<li><svg xmlns=\"http://www.w3.org/2000/svg\" width=\"12\" height=\"12\">{}/></svg> {}</li>\n",
                       marker(c, 6, 6, 4.5), escaped(categories[c]));
  }
  return out + "</ul>\n";
}

std::string share_bar(double share) {
  const double width = 64 * std::clamp(std::isfinite(share) ? share : 0.0, 0.0, 1.0);
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"bar\" width=\"64\" height=\"8\"><rect width=\"64\" height=\"8\" fill=\"#eceff3\"/>"
      "<rect width=\"{:.1f}\" height=\"8\" fill=\"#4a78b0\"/></svg>",
      width);
}

}  // namespace lc::report
