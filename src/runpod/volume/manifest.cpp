#include "runpod/volume/manifest.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iterator>

#include "base/json.h"
#include "base/quote.h"

namespace limner::runpod {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::uintmax_t kLargestText = std::uintmax_t{64} << 20;

bool stays_inside(const fs::path& path) {
  return !path.empty() && !path.is_absolute() &&
         std::none_of(path.begin(), path.end(), [](const fs::path& part) {
           return part == ".." || part == "." || part.empty();
         });
}

bool is_sha256(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

[[noreturn]] void refuse(const std::string& why) {
  throw Failure(ErrorCode::kInvalidArgument, why);
}

VolumeFile read_entry(const std::string& path, const json& entry) {
  if (!stays_inside(path)) refuse(fmt::format("{} is no path below the volume", quote(path)));
  VolumeFile file;
  file.bytes = entry.at("bytes").get<std::uint64_t>();
  file.sha256 = entry.at("sha256").get<std::string>();
  file.source = entry.value("source", "");
  file.when = entry.value("when", "");
  if (!is_sha256(file.sha256)) refuse(fmt::format("the sha256 of {} is none", quote(path)));
  return file;
}

VolumeManifest read_all(std::string_view text) {
  const json all = parse_json(text).value_or_throw();
  const int format = all.at("format").get<int>();
  if (format != kVolumeFormat) {
    refuse(fmt::format("it is of format {}, and this limner knows {}; use the limner that wrote it",
                       format, kVolumeFormat));
  }
  VolumeManifest manifest;
  manifest.written = all.value("written", "");
  for (const auto& [path, entry] : all.at("files").items())
    manifest.files.emplace(path, read_entry(path, entry));
  if (all.contains("asked")) {
    for (const auto& [what, path] : all.at("asked").items())
      manifest.asked.emplace(what, path.get<std::string>());
  }
  return manifest;
}

}  // namespace

std::string to_text(const VolumeManifest& manifest) {
  json files = json::object();
  for (const auto& [path, file] : manifest.files) {
    files[path] = {{"bytes", file.bytes},
                   {"sha256", file.sha256},
                   {"source", file.source},
                   {"when", file.when}};
  }
  const json all = {{"format", kVolumeFormat},
                    {"tool", "limner " LIMNER_VERSION},
                    {"written", manifest.written},
                    {"asked", manifest.asked},
                    {"files", files}};
  return all.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<VolumeManifest> parse_manifest(std::string_view text, const std::string& file) {
  try {
    return read_all(text);
  } catch (const Failure& failure) {
    return Error{failure.error().code, fmt::format("{}: {}", file, failure.error().message)};
  } catch (const json::exception&) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{}: want {{\"format\": {}, \"files\": {{PATH: {{\"bytes\", "
                             "\"sha256\"}}}}}}, and something of it is missing or of another kind",
                             file, kVolumeFormat)};
  }
}

Result<VolumeManifest> read_manifest(const fs::path& volume) {
  const fs::path file = volume / kVolumeManifest;
  const auto text = read_text(file);
  if (!text.ok()) return text.error();
  return parse_manifest(*text, file.string());
}

std::string utc_now() {
  return fmt::format(
      "{:%Y-%m-%dT%H:%M:%SZ}",
      fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
}

Result<std::string> read_text(const fs::path& file) {
  std::error_code error;
  const auto bytes = fs::file_size(file, error);
  if (error == std::errc::no_such_file_or_directory)
    return Error{ErrorCode::kNotFound, fmt::format("{}: there is no such file", file.string())};
  std::ifstream in(file, std::ios::binary);
  if (error || !in || bytes > kLargestText)
    return Error{ErrorCode::kIo, fmt::format("cannot read {}: {}", file.string(),
                                             error ? error.message() : std::strerror(errno))};
  return std::string{std::istreambuf_iterator<char>(in), {}};
}

}  // namespace limner::runpod
