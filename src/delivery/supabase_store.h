// SupabaseStore: objects in a bucket of Supabase Storage, by its REST API (the routes of
// github.com/supabase/storage).
#pragma once

#include <string>

#include "delivery/retries.h"
#include "delivery/store.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"

namespace limner::delivery {

struct SupabaseOptions {
  std::string url{};          // "https://PROJECT.supabase.co", or a storage server's own address
  std::string service_key{};  // sent as Authorization and apikey; in no message
  std::string bucket{};
  std::string prefix{};  // before every object's key: "" or ends with '/'
  RetryOptions retries{};
};

// Safe to call from many threads; calls are made again as S3Client's. Removing by age looks at the
// age and then removes, as S3Store does. Uploads are whole, so nothing is ever left over.
class SupabaseStore final : public ArtifactStore {
 public:
  // Errors: kInvalidArgument (a URL that is none, no key, no bucket). `exchange` and `clock` must
  // outlive the store.
  static Result<std::unique_ptr<SupabaseStore>> make(SupabaseOptions options,
                                                     platform::http::Exchange& exchange,
                                                     const platform::Clock& clock);

  // That the bucket is there and the key opens it.
  Result<void> check_bucket();

  Result<StoredObject> put(const Place& place, std::span<const std::uint8_t> bytes) override;
  Result<std::vector<std::uint8_t>> get(const ObjectKey& key, ByteRange range) override;
  Result<StoredObject> head(const ObjectKey& key) override;
  Result<std::string> sign(const SignRequest& request) override;
  Result<bool> remove(const ObjectKey& key, Time stored_before) override;
  Result<ListPage> list(const ListRequest& request) override;
  Result<std::size_t> remove_leftovers(Time) override { return std::size_t{0}; }

 private:
  struct Call;
  SupabaseStore(SupabaseOptions options, platform::http::Exchange& exchange,
                const platform::Clock& clock);
  std::string object(const ObjectKey& key) const;  // BUCKET/PREFIX/KEY, encoded
  // Throw Failure.
  platform::http::Reply perform(const Call& call);
  platform::http::Reply describe(const ObjectKey& key);

  const SupabaseOptions options_;
  const platform::Clock& clock_;
  platform::http::Url base_;  // its target is the path before /object and /bucket
  Retries retries_;
};

}  // namespace limner::delivery
