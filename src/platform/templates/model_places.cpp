#include "platform/templates/model_places.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/statvfs.h>
#include <unistd.h>

namespace limner::platform {
namespace {

namespace fs = std::filesystem;

std::optional<std::uint64_t> free_on(const fs::path& folder) {
  struct statvfs status = {};
  if (::statvfs(folder.c_str(), &status) != 0) return std::nullopt;
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

std::string gibibytes(std::uint64_t bytes) {
  return fmt::format("{:.2f} GiB", static_cast<double>(bytes) / (1024.0 * 1024 * 1024));
}

bool is_right(const PlaceRequest& request, const fs::path& folder) {
  std::error_code ignored;
  if (!fs::exists(folder / "model_index.json", ignored)) return false;
  return !request.is_right || request.is_right(folder);
}

std::uint64_t size_of(const fs::path& folder) {
  std::uint64_t bytes = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) bytes += entry.file_size();
  }
  return bytes;
}

// Beside its place, then renamed; what stood there goes only when the copy is whole.
void copy_whole(const fs::path& from, const fs::path& to) {
  const fs::path half = fmt::format("{}.copying-{}", to.string(), ::getpid());
  const fs::path old = fmt::format("{}.old-{}", to.string(), ::getpid());
  std::error_code ignored;
  try {
    fs::remove_all(half);
    fs::copy(from, half, fs::copy_options::recursive);
    if (fs::exists(to)) fs::rename(to, old);
    fs::rename(half, to);
    fs::remove_all(old, ignored);
  } catch (const fs::filesystem_error&) {
    if (!fs::exists(to, ignored) && fs::exists(old, ignored)) fs::rename(old, to, ignored);
    fs::remove_all(half, ignored);
    throw;
  }
}

ModelPlace from_image(const PlaceRequest& request, const fs::path& built) {
  if (request.volume.empty())
    return {built, false, fmt::format("{}: used from {}", request.dir, built.string())};
  const fs::path target = request.volume / request.dir;
  const std::uint64_t bytes = size_of(built), wanted = bytes + bytes / 20;
  std::error_code error;
  fs::create_directories(request.volume, error);
  const auto room =
      request.free_bytes ? request.free_bytes(request.volume) : free_on(request.volume);
  if (error || !room) {
    return {built, false,
            fmt::format("{}: used in place from {}: the volume {} cannot be written", request.dir,
                        built.string(), request.volume.string())};
  }
  if (*room < wanted) {
    return {built, false,
            fmt::format("{}: used in place from {}: the volume {} has {} free, a copy wants {}",
                        request.dir, built.string(), request.volume.string(), gibibytes(*room),
                        gibibytes(wanted))};
  }
  try {
    copy_whole(built, target);
  } catch (const fs::filesystem_error& failure) {
    return {built, false,
            fmt::format("{}: used in place from {}: copying to the volume failed ({})", request.dir,
                        built.string(), failure.code().message())};
  }
  return {target, true,
          fmt::format("{}: copied from {} to {} ({})", request.dir, built.string(), target.string(),
                      gibibytes(bytes))};
}

}  // namespace

Result<ModelPlace> place_model(const PlaceRequest& request) {
  try {
    std::vector<std::string> looked;
    if (!request.volume.empty()) {
      const fs::path on_volume = request.volume / request.dir;
      if (is_right(request, on_volume))
        return ModelPlace{
            on_volume, false,
            fmt::format("{}: found on the volume at {}", request.dir, on_volume.string())};
      looked.push_back(request.volume.string());
    }
    for (const fs::path& image : request.images) {
      if (is_right(request, image / request.dir)) return from_image(request, image / request.dir);
      looked.push_back(image.string());
    }
    return Error{ErrorCode::kNotFound, fmt::format("there is no built model {} in {}", request.dir,
                                                   fmt::join(looked, ", "))};
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo,
                 fmt::format("{}: cannot be read ({})", request.dir, error.code().message())};
  }
}

}  // namespace limner::platform
