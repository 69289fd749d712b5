#include "platform/config/toml_file.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>

namespace limner::platform {
namespace {

std::string_view word(toml::node_type type) {
  switch (type) {
    case toml::node_type::string:
      return "text";
    case toml::node_type::integer:
      return "whole number";
    case toml::node_type::floating_point:
      return "number";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "date or time";
    case toml::node_type::array:
      return "list";
    default:
      return "table";
  }
}

class Flattener {
 public:
  explicit Flattener(std::vector<TomlValue>& values) : values_(values) {}

  void table(const toml::table& table, const std::string& prefix) {
    // toml++ sorts keys; people read in the file's order.
    std::vector<std::pair<const toml::key*, const toml::node*>> entries;
    for (auto&& [key, node] : table) entries.emplace_back(&key, &node);
    std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
      return a.first->source().begin < b.first->source().begin;
    });
    for (const auto& [key, node] : entries) value(*key, *node, prefix);
  }

 private:
  void value(const toml::key& key, const toml::node& node, const std::string& prefix) {
    TomlValue found;
    found.name = prefix + std::string(key.str());
    found.line = key.source().begin.line;
    found.column = key.source().begin.column;
    found.kind = fmt::format("a {}", word(node.type()));
    if (const toml::table* inner = node.as_table()) {
      found.type = TomlType::kTable;
      const std::string inside = found.name + ".";
      values_.push_back(std::move(found));
      return table(*inner, inside);
    }
    if (const toml::array* list = node.as_array()) {
      read_list(*list, found);
    } else {
      read_scalar(node, found);
    }
    values_.push_back(std::move(found));
  }

  static void read_scalar(const toml::node& node, TomlValue& found) {
    if (const auto* boolean = node.as_boolean()) {
      found.type = TomlType::kBoolean;
      found.kind = "true or false";
      found.texts = {boolean->get() ? "true" : "false"};
    } else if (const auto* integer = node.as_integer()) {
      found.type = TomlType::kInteger;
      found.texts = {fmt::format("{}", integer->get())};
    } else if (const auto* number = node.as_floating_point()) {
      found.type = TomlType::kNumber;
      found.texts = {fmt::format("{}", number->get())};
    } else if (const auto* text = node.as_string()) {
      found.type = TomlType::kText;
      found.texts = {text->get()};
    }
  }

  static void read_list(const toml::array& list, TomlValue& found) {
    for (const toml::node& item : list) {
      const auto* text = item.as_string();
      if (text == nullptr) {
        found.kind = fmt::format("a list with a {}", word(item.type()));
        return;
      }
      found.texts.push_back(text->get());
    }
    found.type = TomlType::kTexts;
    found.kind = "a list of texts";
  }

  std::vector<TomlValue>& values_;
};

}  // namespace

Result<TomlFile> read_toml(std::string_view text) {
  TomlFile file;
  try {
    const toml::table root = toml::parse(text);
    Flattener(file.values).table(root, "");
  } catch (const toml::parse_error& error) {
    const auto& place = error.source().begin;
    file.problem = TomlProblem{std::string(error.description()), place.line, place.column};
  }
  return file;
}

}  // namespace limner::platform
