#include "runpod/volume/places.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 10> kUnfinished = {
    ".part",   ".part.json",  ".partial", ".partial.json", ".new",
    ".coming", ".incomplete", ".tmp",     ".crdownload",   ".aria2"};

void add_folder(const fs::path& volume, const fs::path& folder, std::vector<std::string>& found) {
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error), end;
  for (; !error && entry != end; entry.increment(error)) {
    const fs::path& path = entry->path();
    const std::string below = path.lexically_relative(volume).generic_string();
    const bool skipped = below == kRawFolder || is_leftover(path.filename()) ||
                         path.filename().string().starts_with('.');
    if (entry->is_directory() && entry->is_symlink()) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("{}: is a link to a folder, which would not be uploaded; put the "
                                "folder itself there",
                                path.string()));
    }
    if (skipped && entry->is_directory()) entry.disable_recursion_pending();
    if (!skipped && entry->is_regular_file()) found.push_back(below);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    throw Failure(ErrorCode::kIo,
                  fmt::format("cannot read {}: {}", folder.string(), error.message()));
  }
}

}  // namespace

bool is_leftover(const fs::path& name) {
  const std::string text = name.filename().string();
  return text.find(".partial-") != std::string::npos ||
         std::any_of(kUnfinished.begin(), kUnfinished.end(),
                     [&](std::string_view ending) { return text.ends_with(ending); });
}

Result<std::vector<std::string>> volume_files(const fs::path& volume) {
  try {
    std::vector<std::string> found;
    for (const char* folder : kVolumeFolders) add_folder(volume, volume / folder, found);
    std::error_code ignored;
    if (fs::is_regular_file(volume / kTemplatesFile, ignored)) found.push_back(kTemplatesFile);
    std::sort(found.begin(), found.end());
    return found;
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

}  // namespace limner::runpod
