// Files and small texts from the web, safely: https only, public addresses only, whole or not at
// all.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/error.h"
#include "platform/http/address.h"
#include "platform/http/name_lookup.h"

namespace limner::platform::http {

// A header for one host only, e.g. a key: it goes to no other host, so not to where that host
// redirects. Its value appears in no message.
struct HostHeader {
  std::string authority;  // "civitai.com", or "localhost:8443" for a port other than 443
  std::string name, value;
};

// Whom a download may reach, and how patient it is.
struct NetworkRules {
  // Reached although not public, on any port; plain http only there (LIMNER_EGRESS_ALLOW). All
  // others: https on port 443 or 8443 of a public address, checked for every connection and hop. A
  // name is looked up once a hop. All its addresses must pass, and only these are connected to; of
  // a name that has allowed addresses, only those.
  std::vector<AddressRange> allow{};
  LookUp look_up = system_look_up;
  std::filesystem::path ca_file{};  // certificates to trust instead of the system's
  std::vector<HostHeader> headers{};
  int redirects = 5;
  std::chrono::milliseconds connect_timeout = std::chrono::seconds(20);
  // A connection slower than `minimum_speed` bytes a second for this long (whole seconds) is dead.
  std::chrono::milliseconds stall_timeout = std::chrono::seconds(30);
  std::uint64_t minimum_speed = 1024;
  std::chrono::milliseconds total_timeout = std::chrono::hours(6);
  // Tries without progress (64 KiB) before giving up on failures that may pass (connection lost,
  // 408, 425, 429, 500, 502, 503, 504).
  int attempts = 5;
  // Waits between tries: doubled each time, shortened by up to half at random. A longer Retry-After
  // is obeyed up to max_retry_after, and is the end beyond it.
  std::chrono::milliseconds first_delay = std::chrono::milliseconds(500);
  std::chrono::milliseconds max_delay = std::chrono::seconds(30);
  std::chrono::milliseconds max_retry_after = std::chrono::seconds(120);
};

enum class Content {
  kAny,
  kSafetensors,  // told by content at the first bytes; pickles, archives and pages are refused
};

struct Progress {
  std::uint64_t done = 0;
  std::optional<std::uint64_t> total{};  // nothing while the server has not said it
};

struct DownloadRequest {
  std::string url;
  std::filesystem::path file;  // where it lands, replacing what is there; its folder must exist
  std::string sha256{};        // 64 hexadecimal digits; "" when not known
  Content content = Content::kAny;
  std::uint64_t max_bytes = std::uint64_t{64} << 30;
  int connections = 4;  // at most; used where the server takes ranges and the file is large
  std::uint64_t min_piece = std::uint64_t{8} << 20;  // what a further connection is worth, in bytes
  NetworkRules network{};
  // Called on the caller's thread, ten times a second or so, also while nothing comes.
  std::function<void(const Progress&)> progress{};
  std::stop_token stop{};
};

struct Downloaded {
  std::filesystem::path file;
  std::uint64_t bytes = 0;
  std::string sha256;
  std::string etag;  // "" when the server gave none
};

// Downloads to FILE.part (what is there of it in FILE.part.json), checks, flushes and renames: FILE
// is never half there. A part left by an earlier call for the same URL is continued when the server
// says that the file is still the same (ETag or Last-Modified), so calling again resumes. A FILE
// that already has the wanted SHA-256 is left and returned without a connection. Blocks; safe to
// call from many threads and processes: the second one that wants the same FILE gets kUnavailable.
// Errors: kInvalidArgument (the URL or the request), kPermissionDenied (an address, scheme or
// redirect that is not allowed, a certificate that is not trusted, 403), kUnauthenticated (401),
// kNotFound (404, 410, no such folder), kInvalidModel (not what was wanted: content, SHA-256,
// length, size cap), kIo (disk full or failing), kUnavailable and kDeadlineExceeded (after all
// tries; retryable), kCancelled, kUnsupported (built without libcurl).
Result<Downloaded> download(const DownloadRequest& request);

struct FetchRequest {
  std::string url;
  std::uint64_t max_bytes = std::uint64_t{16} << 20;
  NetworkRules network{};
  std::stop_token stop{};
};

// A small text (an API's JSON) into memory, by the same rules. Errors as download.
Result<std::string> fetch(const FetchRequest& request);

}  // namespace limner::platform::http
