// SupabaseStore: objects in a bucket of Supabase Storage.
#pragma once

#include <string>

#include "delivery/store.h"
#include "delivery/supabase_client.h"

namespace limner::delivery {

// An object is PREFIX + its key. Removing by age looks at the age and then removes, as S3Store
// does. Uploads are whole, so nothing is ever left over. Only an object that is there is signed.
class SupabaseStore final : public ArtifactStore {
 public:
  // `prefix` is "" or ends with '/'. `client` must outlive the store.
  SupabaseStore(SupabaseClient& client, std::string prefix)
      : client_(client), prefix_(std::move(prefix)) {}

  Result<StoredObject> put(const Place& place, std::span<const std::uint8_t> bytes) override;
  Result<std::vector<std::uint8_t>> get(const ObjectKey& key, ByteRange range) override;
  Result<StoredObject> head(const ObjectKey& key) override;
  Result<std::string> sign(const SignRequest& request) override;
  Result<bool> remove(const ObjectKey& key, Time stored_before) override;
  Result<ListPage> list(const ListRequest& request) override;
  Result<std::size_t> remove_leftovers(Time) override { return std::size_t{0}; }

 private:
  std::string name_of(const ObjectKey& key) const { return prefix_ + key.text(); }
  SupabaseClient& client_;
  const std::string prefix_;
};

}  // namespace limner::delivery
