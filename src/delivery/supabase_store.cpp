#include "delivery/supabase_store.h"

#include "delivery/crypto.h"

namespace limner::delivery {

Result<StoredObject> SupabaseStore::put(const Place& place, std::span<const std::uint8_t> bytes) {
  if (const auto checked = check_account(place.account); !checked) return checked.error();
  if (const auto checked = check_extension(place.extension); !checked) return checked.error();
  const ObjectKey key{place.retention, place.account, sha256_hex(bytes), place.extension};
  const auto stored = client_.put(name_of(key), content_type(key.extension), bytes);
  if (!stored) return for_callers(stored.error());
  return StoredObject{key, bytes.size(), *stored};
}

Result<std::vector<std::uint8_t>> SupabaseStore::get(const ObjectKey& key, ByteRange range) {
  auto bytes = client_.get(name_of(key), range, key.sha256);
  if (!bytes) return for_callers(bytes.error());
  return bytes;
}

Result<StoredObject> SupabaseStore::head(const ObjectKey& key) {
  const auto object = client_.head(name_of(key));
  if (!object) return for_callers(object.error());
  return StoredObject{key, object->bytes, object->modified};
}

Result<std::string> SupabaseStore::sign(const SignRequest& request) {
  auto url = client_.sign(name_of(request.key), request.lifetime, request.download_name);
  if (!url) return for_callers(url.error());
  return url;
}

Result<bool> SupabaseStore::remove(const ObjectKey& key, Time stored_before) {
  const auto there = client_.head(name_of(key));
  if (!there && there.error().code == ErrorCode::kNotFound) return false;
  if (!there) return for_callers(there.error());
  if (there->modified >= stored_before) return false;
  const auto removed = client_.remove(name_of(key));
  if (!removed) return for_callers(removed.error());
  // It was there: where the answer to the removal was lost, a second one finds nothing.
  return true;
}

Result<ListPage> SupabaseStore::list(const ListRequest& request) {
  std::string under = prefix_ + std::string(name(request.retention)) + '/';
  if (!request.account.empty()) under += request.account + '/';
  auto listed = client_.list(under, request.after, request.limit);
  if (!listed) return for_callers(listed.error());
  ListPage page;
  for (const SupabaseObject& object : listed->objects) {
    const auto key = parse_object_key(std::string_view(object.key).substr(prefix_.size()));
    if (!key || object.modified >= request.stored_before) continue;
    page.objects.push_back({*key, object.bytes, object.modified});
  }
  page.next = std::move(listed->next);
  return page;
}

}  // namespace limner::delivery
