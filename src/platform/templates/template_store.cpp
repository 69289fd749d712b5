#include "platform/templates/template_store.h"

#include <sys/stat.h>

namespace limner::platform {

std::optional<TemplateStore::Stamp> TemplateStore::stamp(const std::filesystem::path& file) {
  struct stat status = {};
  if (::stat(file.c_str(), &status) != 0) return std::nullopt;
  return Stamp{status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
               static_cast<std::uint64_t>(status.st_size), status.st_ino};
}

Result<std::unique_ptr<TemplateStore>> TemplateStore::open(std::filesystem::path file) {
  std::unique_ptr<TemplateStore> store(new TemplateStore(std::move(file)));
  if (const auto loaded = store->reload(); !loaded.ok()) return loaded.error();
  return store;
}

Result<std::unique_ptr<TemplateStore>> TemplateStore::open_or_wait(std::filesystem::path file) {
  auto store = open(file);
  if (store.ok() || store.error().code != ErrorCode::kNotFound) return store;
  std::unique_ptr<TemplateStore> waiting(new TemplateStore(std::move(file)));
  waiting->current_ = std::make_shared<const Templates>();
  return waiting;
}

std::shared_ptr<const Templates> TemplateStore::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

Result<TemplateStore::Refresh> TemplateStore::refresh() {
  {
    const std::lock_guard lock(mutex_);
    if (stamp(file_) == seen_) return Refresh::kUnchanged;
  }
  if (const auto loaded = reload(); !loaded.ok()) return loaded.error();
  return Refresh::kReloaded;
}

Result<void> TemplateStore::reload() {
  // Before reading: a change that comes while it is read is then seen by the next refresh.
  const std::optional<Stamp> now = stamp(file_);
  auto read = read_templates(file_);
  const std::lock_guard lock(mutex_);
  seen_ = now;
  if (!read.ok()) return read.error();
  current_ = std::make_shared<const Templates>(std::move(*read));
  return {};
}

}  // namespace limner::platform
