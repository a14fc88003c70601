// The page: one HTML file without external resources and without JavaScript, readable in print. Strings that end in _html go in unescaped.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/report/svg.h"

namespace lc::report {

std::string page(const std::string& title, const std::string& subtitle, const std::string& body_html);
std::string section(const std::string& heading, const std::string& body_html);
std::string paragraph(const std::string& text);
std::string note(const std::string& text);  // a remark the reader must not miss
std::string figure(const std::string& svg, const std::string& caption);
std::string side_by_side(const std::vector<std::string>& parts_html);
std::string folded(const std::string& summary, const std::string& body_html);  // closed until clicked
std::string preformatted(const std::string& text);

struct Tile {
  std::string value, name, detail;
};
std::string tiles(const std::vector<Tile>& tiles);  // the few figures that matter, large

enum class Align { left, right };
struct Column {
  std::string name;
  Align align = Align::right;
};
std::string table(const std::vector<Column>& columns, const std::vector<std::vector<std::string>>& rows_html);
std::string facts(const std::vector<std::pair<std::string, std::string>>& names_and_texts);  // two columns: what, which
std::string json_facts(const nlohmann::json& json);  // nested keys become a.b; arrays of plain values one line

std::string percent(double share);          // "86.5 %"; "–" where it is not finite
std::string score(double value);            // ".865", "1.000"
std::string grouped(unsigned long long n);  // 12,345

}  // namespace lc::report
