// SupabaseClient: a bucket of Supabase Storage by its REST API (the routes of
// github.com/supabase/storage).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "delivery/retries.h"
#include "delivery/store.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"

namespace limner::delivery {

struct SupabaseOptions {
  std::string url{};          // "https://PROJECT.supabase.co", or a storage server's own address
  std::string service_key{};  // sent as Authorization and apikey; in no message
  std::string bucket{};
  RetryOptions retries{};
};

struct SupabaseObject {
  std::string key;
  std::uint64_t bytes = 0;
  Time modified{};
};

struct SupabasePage {
  std::vector<SupabaseObject> objects;
  std::string next;  // the server's own mark; "" after the last page
};

// Safe to call from many threads; every call blocks, and is made again as Retries does where that
// may help. Uploads are whole or not at all; the API has no checksum for them, so what guards them
// on their way is TLS. Errors: as ArtifactStore's calls.
class SupabaseClient {
 public:
  // Errors: kInvalidArgument (a URL that is none, no key, no bucket). `exchange` and `clock` must
  // outlive the client.
  static Result<std::unique_ptr<SupabaseClient>> make(SupabaseOptions options,
                                                      platform::http::Exchange& exchange,
                                                      const platform::Clock& clock);

  // That the bucket is there and the key opens it.
  Result<void> check_bucket();
  // Replaces what lies under `key`. The time is this machine's.
  Result<Time> put(const std::string& key, std::string_view content_type,
                   std::span<const std::uint8_t> bytes, const CallLimits& limits = {});
  // A whole object is held against `sha256`, where one is given, and read again when it is not its.
  Result<std::vector<std::uint8_t>> get(const std::string& key, ByteRange range = {},
                                        const std::string& sha256 = "");
  Result<SupabaseObject> head(const std::string& key);
  Result<bool> remove(const std::string& key);  // false when it was not there
  // Objects whose keys begin with `prefix`, in their order; `after` is a page's `next`.
  Result<SupabasePage> list(const std::string& prefix, const std::string& after, std::size_t limit);
  // A URL that opens the object, which must be there, until `lifetime` is over. `download_name` as
  // in SignRequest.
  Result<std::string> sign(const std::string& key, std::chrono::seconds lifetime,
                           const std::string& download_name = "", const CallLimits& limits = {});

 private:
  struct Call;
  SupabaseClient(SupabaseOptions options, platform::http::Exchange& exchange,
                 const platform::Clock& clock);
  std::string object(const std::string& key) const;  // BUCKET/KEY, encoded
  // Throw Failure.
  static void check_sum(const Call& call, const platform::http::Reply& reply);
  platform::http::Reply perform(const Call& call);
  platform::http::Reply describe(const std::string& key);

  const SupabaseOptions options_;
  const platform::Clock& clock_;
  platform::http::Url base_;  // its target is the path before /object and /bucket
  Retries retries_;
};

}  // namespace limner::delivery
