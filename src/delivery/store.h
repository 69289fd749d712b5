// ArtifactStore: where finished pictures lie. On disk (local_store.h), in a bucket (s3_store.h,
// supabase_store.h); one conformance suite (store_conformance.h) runs against each.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "delivery/object_key.h"

namespace limner::delivery {

using Time = std::chrono::system_clock::time_point;

struct Place {
  std::string account{};
  std::string extension = "png";
  Retention retention = Retention::kHot;
};

struct StoredObject {
  ObjectKey key;
  std::uint64_t bytes = 0;
  Time stored_at{};  // to the second at least; storing the same bytes again renews it
};

// The bytes from `first`, `length` of them or as many as there are.
struct ByteRange {
  std::uint64_t first = 0;
  std::uint64_t length = std::numeric_limits<std::uint64_t>::max();
  bool whole() const { return first == 0 && length == std::numeric_limits<std::uint64_t>::max(); }
};

struct ListRequest {
  Retention retention = Retention::kHot;
  std::string account{};             // "": of all accounts
  Time stored_before = Time::max();  // only what is older
  std::string after{};               // ListPage::next of the page before
  std::size_t limit = 1000;          // objects looked for, at least 1
};

struct ListPage {
  std::vector<StoredObject> objects;  // may be empty although more pages come
  std::string next;                   // "" after the last page
};

struct SignRequest {
  ObjectKey key;
  std::chrono::seconds lifetime = std::chrono::hours(1);
  std::string download_name{};  // the file name a browser saves it under; "": it is shown
};

// Safe to call from many threads; every call blocks until it is done or its store's deadline has
// passed. Errors of all calls: kInvalidArgument (a name that cannot be one), kNotFound,
// kUnavailable and kDeadlineExceeded with `retryable` (a full disk, a store that does not answer:
// trying later may help, and nothing is left behind), kIo (failing disk, a bucket that refuses this
// service's key, bytes that are not what their name says).
class ArtifactStore {
 public:
  virtual ~ArtifactStore() = default;

  // When this returns well, the bytes outlive a power cut. No reader ever sees a part of them.
  // Storing the same bytes again is well too.
  virtual Result<StoredObject> put(const Place& place, std::span<const std::uint8_t> bytes) = 0;
  // A whole object is held against its name's SHA-256. kInvalidArgument for a range that begins
  // behind the last byte.
  virtual Result<std::vector<std::uint8_t>> get(const ObjectKey& key, ByteRange range = {}) = 0;
  virtual Result<StoredObject> head(const ObjectKey& key) = 0;
  // A URL for GET that needs no key and ends after `lifetime`. Whether the object is there is not
  // looked at.
  virtual Result<std::string> sign(const SignRequest& request) = 0;
  // True when it was there and is gone; false when it was not there, or was stored at or after
  // `stored_before`.
  virtual Result<bool> remove(const ObjectKey& key, Time stored_before = Time::max()) = 0;
  // Each object of the class once, in the store's own order, while nothing is stored or removed.
  virtual Result<ListPage> list(const ListRequest& request) = 0;
  // Removes what interrupted puts before `started_before` left. How many.
  virtual Result<std::size_t> remove_leftovers(Time started_before) = 0;
};

// What a bucket's refusal of this service's own key is to who asked the service: kIo, not a matter
// of who he is.
Error for_callers(Error error);

}  // namespace limner::delivery
