// S3Store: objects in an S3 bucket.
#pragma once

#include <string>

#include "delivery/s3_client.h"
#include "delivery/store.h"

namespace limner::delivery {

// An object is PREFIX + its key. Removing by age looks at the age and then removes: an object
// stored again in between is lost, so let one process at a time sweep a bucket, and give objects
// lifetimes far longer than a sweep.
class S3Store final : public ArtifactStore {
 public:
  // `prefix` is "" or ends with '/'. `client` must outlive the store.
  S3Store(S3Client& client, std::string prefix) : client_(client), prefix_(std::move(prefix)) {}

  Result<StoredObject> put(const Place& place, std::span<const std::uint8_t> bytes) override;
  Result<std::vector<std::uint8_t>> get(const ObjectKey& key, ByteRange range) override;
  Result<StoredObject> head(const ObjectKey& key) override;
  Result<std::string> sign(const SignRequest& request) override;
  Result<bool> remove(const ObjectKey& key, Time stored_before) override;
  Result<ListPage> list(const ListRequest& request) override;
  // Uploads in parts that were never completed.
  Result<std::size_t> remove_leftovers(Time started_before) override;

 private:
  std::string name_of(const ObjectKey& key) const { return prefix_ + key.text(); }
  S3Client& client_;
  const std::string prefix_;
};

}  // namespace limner::delivery
