#include "engine/weights/message_text.h"

namespace limner::engine::weights {
std::string short_name(const std::filesystem::path& file) {
  const std::string folder = file.parent_path().filename().string();
  return folder.empty() ? file.filename().string() : folder + "/" + file.filename().string();
}

}  // namespace limner::engine::weights
