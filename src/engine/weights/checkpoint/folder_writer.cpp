#include "engine/weights/checkpoint/folder_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "base/atomic_file.h"
#include "base/file_hash.h"
#include "engine/weights/json.h"
#include "engine/weights/message_text.h"

namespace limner::engine::weights {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kJournal = "limner-progress.json";
constexpr const char* kLock = "limner-lock";

[[noreturn]] void fail(const fs::path& file, const std::string& why) {
  throw Failure(ErrorCode::kIo, fmt::format("{}: {}", quote(file.string()), why));
}

json to_json(const std::map<std::string, WrittenFile>& files) {
  json list = json::object();
  for (const auto& [path, file] : files)
    list[path] = {{"bytes", file.bytes}, {"sha256", file.sha256}};
  return list;
}

}  // namespace

FolderWriter::FolderWriter(fs::path output, std::string key)
    : output_(std::move(output)), key_(std::move(key)) {
  if (!output_.has_filename()) output_ = output_.parent_path();  // a '/' at the end
  partial_ = output_.string() + ".partial";
  std::error_code error;
  if (fs::exists(fs::symlink_status(output_, error)))
    throw Failure(ErrorCode::kInvalidArgument,
                  fmt::format("{}: is there already; remove it or name another place",
                              quote(output_.string())));
  const fs::path parent = output_.has_parent_path() ? output_.parent_path() : ".";
  if (!fs::is_directory(parent, error))
    throw Failure(ErrorCode::kNotFound, quote(parent.string()) + ": no such folder to write into");
  fs::create_directories(partial_, error);
  if (error) fail(partial_, fmt::format("cannot be made ({})", error.message()));
  lock();
  keep_what_is_whole();
}

FolderWriter::~FolderWriter() {
  if (lock_ >= 0) ::close(lock_);
}

void FolderWriter::lock() {
  lock_ = ::open((partial_ / kLock).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) fail(partial_, fmt::format("cannot be written to ({})", std::strerror(errno)));
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    throw Failure(ErrorCode::kUnavailable,
                  fmt::format("{}: is being written by another process", quote(output_.string())));
  }
}

void FolderWriter::keep_what_is_whole() {
  std::error_code error;
  try {
    const json journal = read_json(partial_ / kJournal, kJournal);
    if (journal.value("key", "") == key_) {
      for (const auto& [path, file] : journal.at("files").items()) {
        const WrittenFile written{file.at("bytes"), file.at("sha256")};
        if (fs::file_size(partial_ / path, error) != written.bytes || error) continue;
        const auto hash = file_sha256(partial_ / path);
        if (hash.ok() && *hash == written.sha256) files_.emplace(path, written);
      }
    }
  } catch (const std::exception&) {
    files_.clear();  // no journal, or a damaged one: everything is made again
  }
  std::vector<fs::path> others;
  for (fs::recursive_directory_iterator entry(partial_, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string path = entry->path().lexically_relative(partial_).generic_string();
    if (entry->is_regular_file() && path != kLock && !files_.contains(path))
      others.push_back(entry->path());
  }
  for (const fs::path& file : others) fs::remove(file, error);
}

void FolderWriter::remember(const std::string& path, WrittenFile file) {
  files_[path] = std::move(file);
  write_atomically(partial_ / kJournal, json{{"key", key_}, {"files", to_json(files_)}}.dump());
}

void FolderWriter::add_text(const std::string& path, std::string_view content) {
  std::error_code error;
  fs::create_directories((partial_ / path).parent_path(), error);
  write_atomically(partial_ / path, content);
  remember(path, {content.size(), sha256_hex(std::as_bytes(std::span(content)))});
}

void FolderWriter::add_tensors(const std::string& path, std::vector<TensorPlan> tensors,
                               const MakeTensor& make) {
  if (has(path)) return;
  std::error_code error;
  fs::create_directories((partial_ / path).parent_path(), error);
  remember(path, stream_safetensors(partial_ / path, std::move(tensors), make,
                                    {.metadata = {{"format", "pt"}}})
                     .value_or_throw());
}

void FolderWriter::finish(json about) {
  about["files"] = to_json(files_);
  write_atomically(partial_ / kManifestName, about.dump(2) + "\n");
  std::error_code error;
  fs::remove(partial_ / kJournal, error);
  fs::remove(partial_ / kLock, error);
  for (fs::directory_iterator entry(partial_, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->is_directory()) sync_folder(entry->path());
  }
  sync_folder(partial_);
  if (::rename(partial_.c_str(), output_.c_str()) != 0)
    fail(output_, fmt::format("cannot be put in place ({})", std::strerror(errno)));
  sync_folder(output_.parent_path());
}

}  // namespace limner::engine::weights
