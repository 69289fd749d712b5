// The settings of limner.toml: one list, from which parsing, checking, showing and the documented
// file are made.
#pragma once

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "platform/config/service_config.h"

namespace limner::platform {

// Where a setting's value lies in a ServiceConfig. The type says how it is written.
template <typename T>
using FieldOf = T& (*)(ServiceConfig&);
using Field =
    std::variant<FieldOf<bool>, FieldOf<std::int64_t>, FieldOf<double>, FieldOf<std::string>,
                 FieldOf<std::filesystem::path>, FieldOf<Secret>, FieldOf<Bytes>, FieldOf<Seconds>,
                 FieldOf<Days>, FieldOf<LogLevel>, FieldOf<LogFormat>,
                 FieldOf<std::vector<std::string>>, FieldOf<std::vector<std::filesystem::path>>,
                 FieldOf<std::vector<http::AddressRange>>>;

struct Setting {
  std::string name{};  // "server.port": key `port` of table [server]
  Field field{};
  std::string sentence{};     // what it is for, and what special values mean
  std::string environment{};  // its variable; what settings() makes of the name, where left out
  // Of numbers, seconds and days; of bytes, the least.
  double least = 0.0, most = std::numeric_limits<double>::max();
  std::vector<std::string> choices{};  // of texts: one of these; empty: any
  // Of texts: what is wanted, where one is not as it should be; else "".
  std::string_view (*check)(const std::string&) = nullptr;

  bool secret() const { return std::holds_alternative<FieldOf<Secret>>(field); }
};

// A table of limner.toml: "server", "queue.turbo"; "" for the keys before the first table.
struct SettingGroup {
  std::string name;
  std::string sentence;
};

// In the order of docs/limner.toml; groups without a gap.
std::span<const Setting> settings();
std::span<const SettingGroup> setting_groups();

std::string_view group_of(const Setting& setting);  // "queue.turbo" of "queue.turbo.weight"
std::string_view key_of(const Setting& setting);    // "weight"

// Of secrets: the setting and the variable that name a file with the value.
std::string file_setting(const Setting& setting);   // "delivery.supabase_key_file"
std::string file_variable(const Setting& setting);  // "LIMNER_DELIVERY_SUPABASE_KEY_FILE"

}  // namespace limner::platform
