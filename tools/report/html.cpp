// The style sheet and the few elements the reports are made of.
#include "tools/report/html.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace lc::report {
namespace {

constexpr const char* kStyle = R"(
:root { color-scheme: light; }
body { margin: 0; background: #fff; color: #24292f; font: 15px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 40px 28px 64px; }
header { border-bottom: 1px solid #d9dde3; padding-bottom: 16px; margin-bottom: 8px; }
h1 { font-size: 26px; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; font-weight: 650; margin: 40px 0 10px; }
p { margin: 8px 0; max-width: 74ch; }
.subtitle, figcaption, .detail { color: #5b6370; }
p.detail { font-size: 13px; max-width: 90ch; }
.note { border-left: 3px solid #b8a13a; background: #fbf9f0; padding: 8px 14px; max-width: 72ch; margin: 12px 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 18px 0; }
.tile { border: 1px solid #d9dde3; border-radius: 6px; padding: 12px 14px; }
.tile .value { font-size: 26px; font-weight: 650; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tile .detail { font-size: 12.5px; line-height: 1.4; }
table { border-collapse: collapse; margin: 12px 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th {
  text-align: left; font-weight: 600; color: #5b6370;
  border-bottom: 1px solid #aab1bb; padding: 4px 14px 4px 0; vertical-align: bottom;
}
td { border-bottom: 1px solid #e8ebef; padding: 4px 14px 4px 0; vertical-align: top; overflow-wrap: anywhere; }
th.right, td.right { text-align: right; overflow-wrap: normal; white-space: nowrap; }
td:first-child { white-space: nowrap; }
td svg.bar { margin-left: 8px; }
.wide { overflow-x: auto; }
figure { margin: 14px 0; }
figcaption { font-size: 13px; max-width: 90ch; }
figure > svg, .wide > svg { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: 12px 20px; }
.row > * { flex: 1 1 440px; min-width: 0; margin: 6px 0; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 18px; padding: 0; margin: 8px 0; font-size: 13px; }
details { margin: 12px 0; }
summary { cursor: pointer; color: #2f5d94; }
pre {
  font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: #f6f7f9;
  border: 1px solid #e3e6ea; border-radius: 6px; padding: 12px 14px; overflow-x: auto;
}
footer { margin-top: 48px; border-top: 1px solid #d9dde3; padding-top: 10px; font-size: 12.5px; color: #5b6370; }
@media print {
  main { max-width: none; padding: 0; }
  body { font-size: 11pt; }
  h2 { break-after: avoid; }
  figure, .tile, tr { break-inside: avoid; }
  table { font-size: 8.5pt; }
  th, td { padding-right: 8px; }
  th.right, td.right { white-space: normal; }
  td svg.bar { width: 36px; margin-left: 4px; }
  .row > * { flex-basis: 300px; }
  .tiles { grid-template-columns: repeat(4, 1fr); }
  pre { white-space: pre-wrap; }
  details::details-content { content-visibility: visible; display: block; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
)";

const char* css_class(Align align) { return align == Align::right ? " class=\"right\"" : ""; }

std::string plain_value(const nlohmann::json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

bool is_plain_array(const nlohmann::json& value) {
  if (!value.is_array()) return false;
  for (const auto& entry : value) {
    if (entry.is_structured()) return false;
  }
  return true;
}

void flatten(const std::string& prefix, const nlohmann::json& value, std::vector<std::pair<std::string, std::string>>& out) {
  if (is_plain_array(value)) {
    std::string joined;
    for (const auto& entry : value) joined += (joined.empty() ? "" : ", ") + plain_value(entry);
    out.emplace_back(prefix, joined);
  } else if (value.is_object()) {
    for (const auto& [key, inner] : value.items()) flatten(prefix.empty() ? key : prefix + "." + key, inner, out);
  } else if (value.is_array()) {
    for (size_t i = 0; i < value.size(); ++i) flatten(fmt::format("{}[{}]", prefix, i), value[i], out);
  } else {
    out.emplace_back(prefix, value.is_null() ? "–" : plain_value(value));
  }
}

}  // namespace

std::string page(const std::string& title, const std::string& subtitle, const std::string& body_html) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/>\n"
      "<title>{}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n<header>\n<h1>{}</h1>\n<div "
      "class=\"subtitle\">{}</div>\n</header>\n{}</main>\n</body>\n</html>\n",
      escaped(title), kStyle, escaped(title), escaped(subtitle), body_html);
}

std::string section(const std::string& heading, const std::string& body_html) {
  return fmt::format("<section>\n<h2>{}</h2>\n{}</section>\n", escaped(heading), body_html);
}

std::string paragraph(const std::string& text) { return fmt::format("<p>{}</p>\n", escaped(text)); }

std::string note(const std::string& text) { return fmt::format("<p class=\"note\">{}</p>\n", escaped(text)); }

std::string figure(const std::string& svg, const std::string& caption) {
  const std::string below = caption.empty() ? "" : fmt::format("<figcaption>{}</figcaption>\n", escaped(caption));
  return fmt::format("<figure>\n<div class=\"wide\">{}</div>\n{}</figure>\n", svg, below);
}

std::string side_by_side(const std::vector<std::string>& parts_html) {
  std::string out = "<div class=\"row\">\n";
  for (const auto& part : parts_html) out += part;
  return out + "</div>\n";
}

std::string folded(const std::string& summary, const std::string& body_html) {
  return fmt::format("<details>\n<summary>{}</summary>\n{}</details>\n", escaped(summary), body_html);
}

std::string preformatted(const std::string& text) { return fmt::format("<pre>{}</pre>\n", escaped(text)); }

std::string tiles(const std::vector<Tile>& tiles) {
  std::string out = "<div class=\"tiles\">\n";
  for (const auto& tile : tiles) {
    out += fmt::format("<div class=\"tile\"><div>{}</div><div class=\"value\">{}</div><div class=\"detail\">{}</div></div>\n",
                       escaped(tile.name), escaped(tile.value), escaped(tile.detail));
  }
  return out + "</div>\n";
}

std::string table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows_html) {
  std::string out = "<div class=\"wide\"><table>\n<thead><tr>";
  for (const auto& column : columns) out += fmt::format("<th{}>{}</th>", css_class(column.align), escaped(column.name));
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows_html) {
    out += "<tr>";
    for (size_t k = 0; k < columns.size(); ++k)
      out += fmt::format("<td{}>{}</td>", css_class(columns[k].align), k < row.size() ? row[k] : "");
    out += "</tr>\n";
  }
  return out + "</tbody>\n</table></div>\n";
}

std::string facts(const std::vector<std::pair<std::string, std::string>>& names_and_texts) {
  std::string out = "<div class=\"wide\"><table>\n<tbody>\n";
  for (const auto& [name, text] : names_and_texts)
    out += fmt::format("<tr><td class=\"detail\">{}</td><td>{}</td></tr>\n", escaped(name), escaped(text));
  return out + "</tbody>\n</table></div>\n";
}

std::string json_facts(const nlohmann::json& json) {
  std::vector<std::pair<std::string, std::string>> flat;
  flatten("", json, flat);
  return facts(flat);
}

std::string percent(double share) { return std::isfinite(share) ? fmt::format("{:.1f} %", 100 * share) : "–"; }

std::string score(double value) {
  if (!std::isfinite(value)) return "–";
  const std::string digits = fmt::format("{:.3f}", value);
  return digits.starts_with("0.") ? digits.substr(1) : digits;
}

std::string grouped(unsigned long long n) {
  std::string digits = std::to_string(n);
  for (auto at = static_cast<std::ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

}  // namespace lc::report
