#include "delivery/s3_store.h"

#include <fmt/format.h>

#include "delivery/crypto.h"
#include "delivery/s3_large_put.h"

namespace limner::delivery {

Result<StoredObject> S3Store::put(const Place& place, std::span<const std::uint8_t> bytes) {
  if (const auto checked = check_account(place.account); !checked) return checked.error();
  if (const auto checked = check_extension(place.extension); !checked) return checked.error();
  const ObjectKey key{place.retention, place.account, sha256_hex(bytes), place.extension};
  if (bytes.size() > kLargeObject) {
    const auto object = put_in_parts(client_, name_of(key), content_type(key.extension), bytes);
    if (!object) return for_callers(object.error());
    return StoredObject{key, bytes.size(), object->modified};
  }
  const auto stored = client_.put(name_of(key), content_type(key.extension), bytes);
  if (!stored) return for_callers(stored.error());
  return StoredObject{key, bytes.size(), *stored};
}

Result<std::vector<std::uint8_t>> S3Store::get(const ObjectKey& key, ByteRange range) {
  auto bytes = client_.get(name_of(key), range);
  if (!bytes) return for_callers(bytes.error());
  if (!range.whole() || sha256_hex(*bytes) == key.sha256) return bytes;
  return Error{ErrorCode::kIo,
               fmt::format("[store] the bytes of {} are not what its name says", key.text())};
}

Result<StoredObject> S3Store::head(const ObjectKey& key) {
  const auto object = client_.head(name_of(key));
  if (!object) return for_callers(object.error());
  return StoredObject{key, object->bytes, object->modified};
}

Result<std::string> S3Store::sign(const SignRequest& request) {
  return client_.presign_get(name_of(request.key), request.lifetime, request.download_name);
}

Result<bool> S3Store::remove(const ObjectKey& key, Time stored_before) {
  const auto there = client_.head(name_of(key));
  if (!there && there.error().code == ErrorCode::kNotFound) return false;
  if (!there) return for_callers(there.error());
  if (there->modified >= stored_before) return false;
  const auto removed = client_.remove(name_of(key));
  if (!removed) return for_callers(removed.error());
  return true;
}

Result<ListPage> S3Store::list(const ListRequest& request) {
  std::string under = prefix_ + std::string(name(request.retention)) + '/';
  if (!request.account.empty()) under += request.account + '/';
  const auto listed =
      client_.list(under, request.after.empty() ? "" : prefix_ + request.after, request.limit);
  if (!listed) return for_callers(listed.error());
  ListPage page;
  for (const S3Object& object : listed->objects) {
    const auto key = parse_object_key(std::string_view(object.key).substr(prefix_.size()));
    if (!key || object.modified >= request.stored_before) continue;
    page.objects.push_back({*key, object.bytes, object.modified});
  }
  if (!listed->next.empty()) page.next = listed->next.substr(prefix_.size());
  return page;
}

Result<std::size_t> S3Store::remove_leftovers(Time started_before) {
  const auto uploads = client_.unfinished_uploads(prefix_);
  if (!uploads) return for_callers(uploads.error());
  std::size_t removed = 0;
  for (const S3Upload& upload : *uploads) {
    if (upload.started >= started_before) continue;
    if (const auto aborted = client_.abort(upload); !aborted) return for_callers(aborted.error());
    ++removed;
  }
  return removed;
}

}  // namespace limner::delivery
