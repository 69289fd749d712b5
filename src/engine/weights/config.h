// Config: one JSON config of a checkpoint, read key by key, so that a key nobody asked for is
// noticed.
#pragma once

#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace limner::engine::weights {

// Used while a model is built, by one thread. Every accessor throws Failure(kInvalidModel) with
// file, key, what was wanted and what came. JSON null counts as absent.
class Config {
 public:
  static Config read(const std::filesystem::path& file);
  Config(nlohmann::json object, std::string where);

  bool has(std::string_view key) const;  // present and not null; marks the key as read
  std::int64_t integer(std::string_view key, std::int64_t fallback) const;  // 1.0 is accepted as 1
  double number(std::string_view key, double fallback) const;
  bool boolean(std::string_view key, bool fallback) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  std::vector<std::int64_t> integers(std::string_view key,
                                     std::vector<std::int64_t> fallback) const;
  std::vector<double> numbers(std::string_view key, std::vector<double> fallback) const;
  std::vector<std::string> texts(std::string_view key, std::vector<std::string> fallback) const;
  // A scalar or a list of `count`: the scalar is repeated.
  std::vector<std::int64_t> integer_per_block(std::string_view key, std::int64_t fallback,
                                              std::size_t count) const;
  const nlohmann::json& raw(
      std::string_view key) const;  // null json when absent; marks the key as read

  // A number between lowest and highest, else an error ("config with nonsense dimensions").
  std::int64_t integer_in(std::string_view key, std::int64_t fallback, std::int64_t lowest,
                          std::int64_t highest) const;

  // Keys that cannot change the computation (names, versions, training-only settings); any key
  // beginning with '_' is among them.
  void ignore(std::initializer_list<std::string_view> keys) const;
  // The key may be absent, null or `value` (any JSON scalar); anything else is an error:
  // "unet/config.json: 'dual_cross_attention' = true is not supported (want false)".
  void only(std::string_view key, const nlohmann::json& value) const;
  // Throws for keys that were neither read nor ignored.
  void finish() const;

  const nlohmann::json& object() const { return object_; }
  const std::string& where() const { return where_; }
  [[noreturn]] void fail(std::string_view key, std::string_view message) const;

 private:
  nlohmann::json object_;
  std::string where_;
  mutable std::set<std::string, std::less<>> read_;
};

}  // namespace limner::engine::weights
