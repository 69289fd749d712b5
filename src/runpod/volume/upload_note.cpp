#include "runpod/volume/upload_note.h"

#include <fmt/format.h>

#include "base/atomic_file.h"
#include "base/json.h"
#include "base/sha256.h"
#include "runpod/volume/manifest.h"

namespace limner::runpod {
namespace {

using nlohmann::json;

std::string short_hash(const std::string& text) {
  return sha256_hex(std::as_bytes(std::span(text))).substr(0, 12);
}

}  // namespace

UploadNote::UploadNote(const std::filesystem::path& volume, const std::string& target)
    : file_(volume / fmt::format(".limner-upload-{}.json", short_hash(target))), target_(target) {
  const auto text = read_text(file_);
  if (!text.ok()) return;
  const json note = json::parse(*text, nullptr, false);
  try {
    if (note.is_discarded() || note.at("target") != target) return;
    arrived_ = note.at("arrived").get<std::map<std::string, std::string>>();
    for (const auto& [path, upload] : note.at("unfinished").items()) {
      unfinished_[path] = {upload.at("id").get<std::string>(),
                           upload.at("sha256").get<std::string>(),
                           upload.at("part_bytes").get<std::uint64_t>()};
    }
  } catch (const json::exception&) {
    arrived_.clear();
    unfinished_.clear();
  }
}

std::string UploadNote::arrived(const std::string& path) const {
  const auto found = arrived_.find(path);
  return found == arrived_.end() ? "" : found->second;
}

std::optional<UploadNote::Unfinished> UploadNote::unfinished(const std::string& path) const {
  const auto found = unfinished_.find(path);
  if (found == unfinished_.end()) return std::nullopt;
  return found->second;
}

void UploadNote::begin(std::map<std::string, std::string> arrived) {
  arrived_ = std::move(arrived);
  save();
}

void UploadNote::set_unfinished(const std::string& path, const Unfinished& upload) {
  unfinished_[path] = upload;
  save();
}

void UploadNote::set_arrived(const std::string& path, const std::string& sha256) {
  unfinished_.erase(path);
  arrived_[path] = sha256;
  save();
}

void UploadNote::remove() {
  std::error_code ignored;
  std::filesystem::remove(file_, ignored);
}

void UploadNote::save() const {
  json unfinished = json::object();
  for (const auto& [path, upload] : unfinished_) {
    unfinished[path] = {
        {"id", upload.id}, {"sha256", upload.sha256}, {"part_bytes", upload.part_bytes}};
  }
  write_atomically(
      file_, json{{"target", target_}, {"arrived", arrived_}, {"unfinished", unfinished}}.dump(
                 -1, ' ', false, json::error_handler_t::replace));
}

}  // namespace limner::runpod
