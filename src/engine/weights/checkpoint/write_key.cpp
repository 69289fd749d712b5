#include "engine/weights/checkpoint/write_key.h"

#include <nlohmann/json.hpp>

#include "base/sha256.h"

namespace limner::engine::weights {

namespace fs = std::filesystem;

std::string write_key(const ModelFolder& model,
                      const std::map<std::string, std::shared_ptr<const Weights>>& weights,
                      const WriteOptions& options) {
  nlohmann::json key = {{"kind", options.kind},
                        {"variant", options.variant},
                        {"dtype", options.dtype ? name(*options.dtype) : ""},
                        {"tool", LIMNER_VERSION}};
  const auto add = [&](const fs::path& file) {
    std::error_code error;
    key["files"].push_back({fs::absolute(file, error).string(), fs::file_size(file, error),
                            fs::last_write_time(file, error).time_since_epoch().count()});
  };
  for (const auto& [component, of_component] : weights) {
    for (const fs::path& file : of_component->files()) add(file);
  }
  for (const ManifestInput& input : options.inputs) {
    key["inputs"].push_back({input.role, input.path.string(), input.scale, input.detail});
    if (fs::is_regular_file(input.path)) add(input.path);
  }
  for (const auto& [path, text] : text_files(model)) key["texts"][path] = text;
  // A text that is no UTF-8 is refused elsewhere, where its file can be named.
  const std::string text = key.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return sha256_hex(std::as_bytes(std::span(text)));
}

}  // namespace limner::engine::weights
