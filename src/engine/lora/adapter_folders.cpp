#include "engine/lora/adapter_folders.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/suggest.h"
#include "engine/weights/message_text.h"

namespace limner::engine::lora {
namespace {

namespace fs = std::filesystem;

constexpr int kDeepest = 4;
constexpr std::size_t kMostFiles = 100'000;  // against a folder that was not meant to be one
constexpr std::size_t kLongestName = 200;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

std::string sanitised(std::string_view text) {
  std::string name(text);
  std::ranges::replace_if(name, [](char c) { return !is_name_character(c); }, '_');
  return name;
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied,
                                         failed);
  for (std::size_t seen = 0; !failed && entry != fs::recursive_directory_iterator(); ++seen) {
    if (seen == kMostFiles) break;
    if (entry.depth() >= kDeepest) entry.disable_recursion_pending();
    std::error_code ignored;
    if (entry->path().extension() == ".safetensors" && entry->is_regular_file(ignored)) {
      files.push_back(entry->path());
    }
    entry.increment(failed);
  }
  std::ranges::sort(files);
  return files;
}

}  // namespace

std::string adapter_name(const fs::path& file) {
  return sanitised(file.stem().string());
}

std::vector<NamedAdapter> AdapterFolders::list() const {
  std::vector<NamedAdapter> found;
  std::set<std::string> names;
  for (const fs::path& folder : folders_) {
    for (const fs::path& file : files_in(folder)) {
      const std::string name = adapter_name(file);
      if (name.empty() || !names.insert(name).second) continue;
      std::error_code ignored;
      const std::uintmax_t bytes = fs::file_size(file, ignored);
      found.push_back({name, file, ignored ? 0 : static_cast<std::uint64_t>(bytes)});
    }
  }
  std::ranges::sort(found, {}, &NamedAdapter::name);
  return found;
}

Result<fs::path> AdapterFolders::find(std::string_view name) const {
  const bool foreign = std::ranges::any_of(
      name, [](char c) { return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20; });
  if (name.empty() || name.size() > kLongestName || foreign || name.starts_with('.')) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("{} cannot be the name of an adapter: want letters, digits, '.', '_' "
                             "and '-'",
                             weights::quote(name))};
  }
  std::vector<NamedAdapter> known = list();
  const std::string wanted = sanitised(name);
  const auto found = std::ranges::find(known, wanted, &NamedAdapter::name);
  if (found != known.end()) return found->file;
  std::vector<std::string> names;
  for (const NamedAdapter& adapter : known) names.push_back(adapter.name);
  return Error{
      ErrorCode::kNotFound,
      fmt::format("no such adapter: {}{}{}", weights::quote(name), did_you_mean(wanted, names),
                  known.empty() ? "; the adapter folders are empty" : "")};
}

Result<fs::path> AdapterFolders::find_path_or_name(const std::string& wanted) const {
  std::error_code ignored;
  if (fs::is_regular_file(wanted, ignored)) return fs::path(wanted);
  if (wanted.find('/') != std::string::npos) {
    return Error{ErrorCode::kNotFound,
                 fmt::format("no such adapter: there is no file {}", weights::quote(wanted))};
  }
  return find(wanted.ends_with(".safetensors") ? fs::path(wanted).stem().string() : wanted);
}

}  // namespace limner::engine::lora
