#include "runpod/volume/check.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/file_hash.h"
#include "runpod/volume/places.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using Kind = Finding::Kind;

constexpr const char* kAgain = "Run `limner volume setup` or `limner volume upload` again.";

// "models/sdxl/unet/config.json" -> "models/sdxl": what is brought and removed as one.
std::string group_of(const std::string& path) {
  const auto first = path.find('/');
  return first == std::string::npos ? path : path.substr(0, path.find('/', first + 1));
}

// False when there is no folder to look into.
bool check_folder(const CheckRequest& request, Findings& out) {
  std::error_code error;
  const auto status = fs::status(request.volume, error);
  if (status.type() == fs::file_type::not_found) {
    out.problem({Kind::kMissing, "", "is not there",
                 "Attach the network volume (on a serverless worker it is at /runpod-volume, on a "
                 "pod at /workspace), or name the folder with --volume."});
    return false;
  }
  if (error || !fs::is_directory(status)) {
    out.problem({Kind::kUnreadable, "",
                 error ? fmt::format("cannot be looked at ({})", error.message()) : "is no folder",
                 "Name the volume's folder with --volume."});
    return false;
  }
  if (access(request.volume.c_str(), R_OK | X_OK) != 0) {
    out.problem({Kind::kUnreadable, "", fmt::format("cannot be read ({})", std::strerror(errno)),
                 "Run as the user who owns it, or open it with `chmod -R a+rX`."});
    return false;
  }
  if (fs::is_empty(request.volume, error)) {
    out.problem({Kind::kMissing, "", "is empty",
                 "Fill it with `limner volume setup` here, or with `limner volume upload` from "
                 "elsewhere; or another volume is attached than the one that was filled."});
    return false;
  }
  return true;
}

std::optional<VolumeManifest> find_manifest(const CheckRequest& request, Findings& out) {
  auto manifest = read_manifest(request.volume);
  if (manifest.ok()) return std::move(*manifest);
  if (manifest.error().code == ErrorCode::kNotFound) {
    out.problem({Kind::kMissing, kVolumeManifest,
                 "is not there: set-up or an upload has not come to its end, or files were put "
                 "here by hand",
                 std::string(kAgain) + " Set-up takes in what lies there already."});
  } else {
    out.problem(
        {Kind::kDamaged, kVolumeManifest, "cannot be used: " + manifest.error().message, kAgain});
  }
  return std::nullopt;
}

// Compares the manifest's files with the disk's.
class Comparison {
 public:
  Comparison(const CheckRequest& request, const VolumeManifest& manifest, Findings& out)
      : request_(request), manifest_(manifest), out_(out) {}

  void run() {
    for (const auto& [path, file] : manifest_.files) total_ += file.bytes;
    for (const auto& [path, file] : manifest_.files) {
      compare(path, file);
      done_ += file.bytes;
    }
    for (const auto& [group, paths] : missing_) tell_missing(group, paths);
  }

 private:
  void compare(const std::string& path, const VolumeFile& wanted) {
    ++out_.report.files;
    out_.report.bytes += wanted.bytes;
    if (out_.named.contains(path)) return;  // hidden
    const fs::path file = request_.volume / path;
    std::error_code error;
    const auto bytes = fs::file_size(file, error);
    if (error && fs::is_symlink(fs::symlink_status(file))) {
      out_.problem(
          {Kind::kMissing, path,
           fmt::format("is a link to {}, which is not there", fs::read_symlink(file).string()),
           "Put the file itself on the volume."});
    } else if (error == std::errc::no_such_file_or_directory) {
      missing_[group_of(path)].push_back(path);
    } else if (error || access(file.c_str(), R_OK) != 0) {
      out_.problem(
          {Kind::kUnreadable, path,
           fmt::format("cannot be read ({})", error ? error.message() : std::strerror(errno)),
           "Run as the user who owns it, or open it with `chmod -R a+rX`."});
    } else if (bytes != wanted.bytes) {
      tell_size(path, bytes, wanted.bytes);
    } else if (!request_.quick) {
      compare_hash(path, wanted);
    }
  }

  void tell_size(const std::string& path, std::uint64_t bytes, std::uint64_t wanted) {
    if (bytes < wanted) {
      out_.problem(
          {Kind::kHalfWritten, path,
           fmt::format("has {} of its {} bytes: it was not written to the end", bytes, wanted),
           kAgain});
    } else {
      out_.problem({Kind::kDamaged, path,
                    fmt::format("has {} bytes where limner-volume.json says {}: it is another file",
                                bytes, wanted),
                    kAgain});
    }
  }

  void compare_hash(const std::string& path, const VolumeFile& wanted) {
    std::uint64_t here = done_;
    const auto hash = file_sha256(request_.volume / path, [&] {
      request_.progress(std::min(here, total_), total_);
      here += std::uint64_t{1} << 20;
    });
    if (!hash.ok()) {
      out_.problem({Kind::kUnreadable, path,
                    fmt::format("cannot be read to its end ({})", hash.error().message),
                    "The disk or the network below it is failing; try again, then " +
                        std::string("bring the file anew.")});
    } else if (*hash != wanted.sha256) {
      out_.problem({Kind::kDamaged, path,
                    fmt::format("has the right size and other bytes: its SHA-256 is {}, "
                                "limner-volume.json says {}",
                                *hash, wanted.sha256),
                    "Remove it, then bring it anew with `limner volume setup` or `limner volume "
                    "upload`."});
    }
  }

  void tell_missing(const std::string& group, const std::vector<std::string>& paths) {
    if (paths.size() == 1) return tell_one_missing(paths.front());
    std::size_t of = 0;
    for (const auto& [path, file] : manifest_.files) of += group_of(path) == group ? 1 : 0;
    out_.problem({Kind::kMissing, group,
                  paths.size() == of ? fmt::format("is not there, nor any of its {} files", of)
                                     : fmt::format("lacks {} of its {} files, {} first",
                                                   paths.size(), of, paths.front()),
                  kAgain});
    out_.named.insert(paths.begin(), paths.end());
  }

  void tell_one_missing(const std::string& path) {
    const std::string place = found_elsewhere(path);
    if (place.empty()) {
      out_.problem({Kind::kMissing, path, "is not there", kAgain});
      return;
    }
    out_.named.insert(place);
    out_.problem(
        {Kind::kMisplaced, path, fmt::format("is not there but at {}", place),
         fmt::format("Move it: mv {0}/{1} {0}/{2}", request_.volume.string(), place, path)});
  }

  // A file of that name and size outside the manifest.
  std::string found_elsewhere(const std::string& path) const {
    const fs::path name = fs::path(path).filename();
    const std::uint64_t bytes = manifest_.files.at(path).bytes;
    std::error_code error, failed;
    fs::recursive_directory_iterator entry(request_.volume,
                                           fs::directory_options::skip_permission_denied, error);
    for (const fs::recursive_directory_iterator end; !error && entry != end;
         entry.increment(error)) {
      if (entry.depth() > 4) entry.disable_recursion_pending();
      if (entry->path().filename() != name || !entry->is_regular_file(failed)) continue;
      const std::string place = entry->path().lexically_relative(request_.volume).generic_string();
      if (!manifest_.files.contains(place) && entry->file_size(failed) == bytes && !failed)
        return place;
    }
    return "";
  }

  const CheckRequest& request_;
  const VolumeManifest& manifest_;
  Findings& out_;
  std::uint64_t done_ = 0, total_ = 0;
  std::map<std::string, std::vector<std::string>> missing_;  // by group
};

}  // namespace

const char* name(Finding::Kind kind) {
  switch (kind) {
    case Kind::kMissing:
      return "missing";
    case Kind::kMisplaced:
      return "misplaced";
    case Kind::kHalfWritten:
      return "half_written";
    case Kind::kDamaged:
      return "damaged";
    case Kind::kUnreadable:
      return "unreadable";
    case Kind::kHidden:
      return "hidden";
    case Kind::kUnused:
      break;
  }
  return "unused";
}

void Findings::problem(Finding finding) {
  named.insert(finding.path);
  report.problems.push_back(std::move(finding));
}

void Findings::note(Finding finding) {
  named.insert(finding.path);
  report.notes.push_back(std::move(finding));
}

void compare_files(const CheckRequest& request, const VolumeManifest& manifest, Findings& out) {
  Comparison(request, manifest, out).run();
}

Result<VolumeReport> check_volume(const CheckRequest& request) {
  Findings out;
  try {
    if (!check_folder(request, out)) return std::move(out.report);
    const auto manifest = find_manifest(request, out);
    check_mounts(request, manifest.value_or(VolumeManifest{}), out);
    if (manifest) compare_files(request, *manifest, out);
    check_places(request, manifest.value_or(VolumeManifest{}), out);
    return std::move(out.report);
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const fs::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

}  // namespace limner::runpod
