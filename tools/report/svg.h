// Figures as SVG text: self-contained (no style sheet, no script), sizes in user units, details on hover through <title>.
// Colours are told apart with every common colour blindness; beyond nine categories the marker's shape changes as well.
#pragma once
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

namespace lc::report {

std::string escaped(std::string_view text);  // & < > " as entities, control characters as U+FFFD: for text and attributes of HTML and SVG

std::string category_color(size_t category);                            // "#rrggbb", repeating after nine
std::vector<double> axis_ticks(double low, double high, size_t about);  // round numbers inside [low, high]

enum class Stroke { line, faint, points };

struct Series {
  std::string name;  // empty: not in the legend
  std::vector<double> x, y;
  std::string color;
  Stroke stroke = Stroke::line;
};

struct Mark {  // a vertical line with a word beside it
  double x;
  std::string text;
};

struct LineChart {
  std::string title, x_label, y_label;
  std::vector<Series> series;
  std::vector<Mark> marks;
  double x_from = NAN, x_to = NAN;  // the axis reaches at least from here to there, so that charts can share it
  double width = 470, height = 250;
};
std::string line_chart(const LineChart& chart);  // values that are not finite interrupt a line

struct ConfusionMap {
  std::vector<std::string> labels;
  std::vector<std::vector<size_t>> counts;  // [truth][label]
  std::vector<size_t> support;              // cells per true class; more than the row's sum where cells have no label
};
std::string confusion_map(const ConfusionMap& map);  // shade: share of the true class

struct Scatter {
  std::string title, x_label, y_label;
  std::vector<double> x, y;
  std::vector<int> category;  // −1: none, drawn grey and first
  std::vector<std::string> categories;
  std::vector<std::string> tooltips;  // one per point, or none
  double width = 470, height = 430;
};
std::string scatter(const Scatter& chart);                                // each category's name stands at its median
std::string category_legend(const std::vector<std::string>& categories);  // an HTML list of marker and name, for charts side by side

std::string share_bar(double share);  // a small horizontal bar for a table cell

}  // namespace lc::report
