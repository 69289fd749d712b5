// The templates of a running program, read anew when their file changes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "platform/templates/templates.h"

namespace limner::platform {

// Safe to call from many threads. A file that is broken or gone changes nothing but refresh()'s
// answer: the templates read last stay in force.
class TemplateStore {
 public:
  // Fails as read_templates does.
  static Result<std::unique_ptr<TemplateStore>> open(std::filesystem::path file);
  // The same of a file that may come later: until then there are no templates.
  static Result<std::unique_ptr<TemplateStore>> open_or_wait(std::filesystem::path file);

  // What is in force; never null, and never changed under its holder.
  std::shared_ptr<const Templates> current() const;

  enum class Refresh { kUnchanged, kReloaded };
  // Looks at the file's time, size and identity, and reads it when one of them is another. Fails
  // with what is wrong with the new content, once for each change of the file; then kUnchanged.
  Result<Refresh> refresh();
  // The same without looking at the time: for a request to reload. Fails each time.
  Result<void> reload();

 private:
  struct Stamp {
    std::int64_t seconds = 0, nanoseconds = 0;
    std::uint64_t size = 0, inode = 0;
    bool operator==(const Stamp&) const = default;
  };
  static std::optional<Stamp> stamp(const std::filesystem::path& file);
  explicit TemplateStore(std::filesystem::path file) : file_(std::move(file)) {}

  const std::filesystem::path file_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Templates> current_;  // guarded by mutex_
  std::optional<Stamp> seen_;                 // guarded by mutex_; nothing while there is no file
};

}  // namespace limner::platform
