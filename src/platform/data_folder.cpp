#include "platform/data_folder.h"

#include <fmt/format.h>

#include "base/atomic_file.h"
#include "base/quote.h"

namespace limner::platform {

namespace fs = std::filesystem;

void make_data_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::create_directories(folder, error)) {
    fs::permissions(folder, fs::perms::owner_all, error);
  }
  if (error) {
    throw Failure(ErrorCode::kIo, fmt::format("the data folder {} cannot be made: {}",
                                              quote(folder.string()), error.message()));
  }
  // Each time: whoever made them may have been killed before this.
  for (fs::path at = fs::absolute(folder); at.has_relative_path(); at = at.parent_path()) {
    sync_folder(at.parent_path());
  }
}

}  // namespace limner::platform
