// LocalStore: objects as files of one folder.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>

#include "delivery/file_system.h"
#include "delivery/signed_url.h"
#include "delivery/store.h"
#include "platform/clock.h"

namespace limner::delivery {

// An object is a file ROOT/KEY, its age the file's time. A put writes ROOT/.tmp/NAME, flushes it,
// renames it and flushes the folder: a crash before the rename leaves a file in .tmp and nothing
// else. Several processes may share one folder. kUnavailable with `retryable` is the full disk (or
// a used-up quota, or no free descriptors).
class LocalStore final : public ArtifactStore {
 public:
  // Before the path of a signed URL: "https://pictures.example" makes
  // "https://pictures.example/v1/artifacts/KEY?...".
  static constexpr std::string_view kPath = "/v1/artifacts/";

  // Makes the folder. `files`, `signer` and `clock` must outlive the store. Errors: as all
  // of a store's calls.
  static Result<std::unique_ptr<LocalStore>> open(const std::filesystem::path& root,
                                                  std::string public_url, const UrlSigner& signer,
                                                  FileSystem& files, const platform::Clock& clock);

  Result<StoredObject> put(const Place& place, std::span<const std::uint8_t> bytes) override;
  Result<std::vector<std::uint8_t>> get(const ObjectKey& key, ByteRange range) override;
  Result<StoredObject> head(const ObjectKey& key) override;
  Result<std::string> sign(const SignRequest& request) override;
  Result<bool> remove(const ObjectKey& key, Time stored_before) override;
  Result<ListPage> list(const ListRequest& request) override;
  Result<std::size_t> remove_leftovers(Time started_before) override;

 private:
  LocalStore(std::filesystem::path root, std::string public_url, const UrlSigner& signer,
             FileSystem& files, const platform::Clock& clock);
  std::filesystem::path path_of(const ObjectKey& key) const;
  std::filesystem::path temporary_name() const;
  void write_temporary(const std::filesystem::path& path, std::span<const std::uint8_t> bytes,
                       Time time);
  void publish(const std::filesystem::path& temporary, const std::filesystem::path& path);

  const std::filesystem::path root_;
  const std::string public_url_;
  const UrlSigner& signer_;
  FileSystem& files_;
  const platform::Clock& clock_;
  // Held while an object appears and while one is looked at and removed, so that a sweep cannot
  // take what was stored again a moment ago.
  std::mutex names_;
};

}  // namespace limner::delivery
