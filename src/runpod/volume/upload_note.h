// UploadNote: what an upload that did not end has brought, so that the next one goes on from there.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

namespace limner::runpod {

// A file beside the volume's own, one for each target, written anew at every change. Used by one
// thread at a time. Throws Failure(kIo).
class UploadNote {
 public:
  struct Unfinished {
    std::string id{};  // the server's
    std::string sha256{};
    std::uint64_t part_bytes = 0;
  };

  // `target` names server, bucket and prefix. A note that cannot be read counts as none.
  UploadNote(const std::filesystem::path& volume, const std::string& target);

  // The SHA-256 of what the target has at a path, as far as it is known; "" where not.
  std::string arrived(const std::string& path) const;
  std::optional<Unfinished> unfinished(const std::string& path) const;

  // What is known before anything changes.
  void begin(std::map<std::string, std::string> arrived);
  void set_unfinished(const std::string& path, const Unfinished& upload);
  void set_arrived(const std::string& path, const std::string& sha256);
  void remove();

 private:
  void save() const;

  std::filesystem::path file_;
  std::string target_;
  std::map<std::string, std::string> arrived_;
  std::map<std::string, Unfinished> unfinished_;
};

}  // namespace limner::runpod
