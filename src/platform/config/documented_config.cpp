#include <fmt/format.h>

#include "platform/config/load_config.h"
#include "platform/config/setting_value.h"
#include "platform/config/settings.h"

namespace limner::platform {
namespace {

constexpr std::size_t kColumns = 100;

constexpr std::string_view kHead =
    "The settings of limner. Every line shows a default; take the # away to change it. An option "
    "of the command line wins over a variable of the environment, that over this file, this file "
    "over the default: `limner config show` prints what is in force and where it came from, "
    "`limner config check` looks for mistakes. Sizes are bytes or texts such as \"512 MiB\". "
    "Relative paths begin where limner is started. In variables, lists are separated by commas, "
    "lists of folders by colons. Secrets come from variables or from files of their own.";

// Lines of at most kColumns that begin with "# ".
std::string comment(std::string_view text) {
  std::string lines;
  std::size_t column = 0;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (column == 0 || column + 1 + word.size() > kColumns) {
      lines += fmt::format("{}#", column == 0 ? "" : "\n");
      column = 1;
    }
    lines += fmt::format(" {}", word);
    column += 1 + word.size();
  }
  return lines + "\n";
}

std::string limits(const Setting& setting) {
  if (!setting.choices.empty()) return fmt::format(" One of: {}.", wanted(setting));
  if (setting.most == std::numeric_limits<double>::max()) {
    return setting.least == 0.0 ? "" : fmt::format(" At least {}.", setting.least);
  }
  return fmt::format(" {} to {}.", setting.least, setting.most);
}

std::string entry(const Setting& setting, ServiceConfig& defaults) {
  if (setting.secret()) {
    return comment(fmt::format("{} Secret: in {}, or in a file that {} or this setting names.",
                               setting.sentence, setting.environment, file_variable(setting))) +
           fmt::format("#{}_file = \"\"\n", key_of(setting));
  }
  return comment(fmt::format("{}{} ({})", setting.sentence, limits(setting), setting.environment)) +
         fmt::format("#{} = {}\n", key_of(setting), shown(setting, defaults));
}

}  // namespace

std::string documented_config() {
  ServiceConfig defaults;
  std::string text = comment(kHead);
  for (const SettingGroup& group : setting_groups()) {
    if (!group.name.empty()) {
      text += fmt::format("\n{}[{}]\n", comment(group.sentence), group.name);
    }
    for (const Setting& setting : settings()) {
      if (group_of(setting) == group.name) text += fmt::format("\n{}", entry(setting, defaults));
    }
  }
  return text;
}

}  // namespace limner::platform
