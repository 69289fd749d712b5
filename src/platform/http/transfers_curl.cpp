#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <exception>
#include <list>
#include <optional>

#include "platform/http/curl_library.h"
#include "platform/http/name_lookup.h"
#include "platform/http/transfers.h"

namespace limner::platform::http {
namespace {

constexpr std::size_t kMaxHeaderBytes = 64u << 10;
constexpr long kReadBytes = 256L << 10;

struct EasyCleanup {
  void operator()(CURL* easy) const { curl().easy_cleanup(easy); }
};
struct MultiCleanup {
  void operator()(CURLM* multi) const { curl().multi_cleanup(multi); }
};
struct ListCleanup {
  void operator()(curl_slist* list) const { curl().slist_free_all(list); }
};
using Easy = std::unique_ptr<CURL, EasyCleanup>;
using Multi = std::unique_ptr<CURLM, MultiCleanup>;
using List = std::unique_ptr<curl_slist, ListCleanup>;

bool is_allowed(const NetworkRules& rules, const IpAddress& address) {
  return std::any_of(rules.allow.begin(), rules.allow.end(),
                     [&](const AddressRange& range) { return range.contains(address); });
}

// Why no socket is made to `address`, "" when one may be.
std::string refusal(const NetworkRules& rules, const Url& url, const IpAddress& address) {
  if (is_allowed(rules, address)) return "";
  if (const auto special = special_use(address); !special.empty()) {
    return fmt::format(
        "is {}, which downloads may not reach (LIMNER_EGRESS_ALLOW lists exceptions)", special);
  }
  if (!url.https) return "is asked by plain http; wanted is https";
  if (url.port != 443 && url.port != 8443) {
    return fmt::format("is asked on port {}; downloads use 443 or 8443", url.port);
  }
  return "";
}

}  // namespace

struct Transfer {
  Easy easy;
  List header_lines;
  List addresses;                    // of the host, for curl: those that were looked up
  std::optional<NameLookup> lookup;  // under way: curl does not know of this transfer yet
  std::chrono::steady_clock::time_point lookup_end{};
  const NetworkRules* rules = nullptr;
  Receiver* receiver = nullptr;
  Response response{};
  std::size_t header_bytes = 0;
  bool enough = false;          // the receiver wants no more
  std::exception_ptr thrown{};  // by the receiver
  std::string refused{};        // why a socket was not made
  std::array<char, CURL_ERROR_SIZE> message{};

  curl_socket_t open_socket(const curl_sockaddr& address) {
    const auto ip = from_socket(address.addr);
    refused = ip ? refusal(*rules, response.url, *ip) : "is not an internet address";
    if (!refused.empty()) return CURL_SOCKET_BAD;
    return socket(address.family, address.socktype | SOCK_CLOEXEC, address.protocol);
  }

  void take_header(std::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMaxHeaderBytes) {
      throw Failure(ErrorCode::kUnavailable,
                    fmt::format("[download] {} sent too long a header", response.url.shown()));
    }
    while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with("HTTP/")) {
      response.headers.clear();
    } else if (line.empty()) {
      end_of_headers();
    } else if (const auto colon = line.find(':'); colon != std::string_view::npos) {
      std::string name(line.substr(0, colon));
      for (char& c : name) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      }
      std::string_view value = line.substr(colon + 1);
      while (value.starts_with(' ') || value.starts_with('\t')) value.remove_prefix(1);
      while (value.ends_with(' ') || value.ends_with('\t')) value.remove_suffix(1);
      const auto [place, added] = response.headers.try_emplace(std::move(name), value);
      if (!added && place->second != value) place->second += ", " + std::string(value);
    }
  }

  void end_of_headers() {
    long status = 0;
    curl().easy_getinfo(easy.get(), CURLINFO_RESPONSE_CODE, &status);
    if (status < 200) return;  // 100 Continue and the like come before the answer
    response.status = static_cast<int>(status);
    enough = !receiver->on_response(response);
  }
};

namespace {

// The callbacks hand over to the Transfer and keep exceptions out of C.
template <typename Body>
std::size_t guarded(Transfer& transfer, std::size_t size, Body body) {
  try {
    body();
  } catch (...) {
    transfer.thrown = std::current_exception();
  }
  return transfer.thrown || transfer.enough ? CURL_WRITEFUNC_ERROR : size;
}

std::size_t on_header(char* bytes, std::size_t, std::size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  return guarded(transfer, size, [&] { transfer.take_header({bytes, size}); });
}

std::size_t on_body(char* bytes, std::size_t, std::size_t size, void* self) {
  auto& transfer = *static_cast<Transfer*>(self);
  return guarded(transfer, size, [&] {
    transfer.enough =
        !transfer.receiver->on_body(std::as_bytes(std::span<const char>(bytes, size)));
  });
}

curl_socket_t on_socket(void* self, curlsocktype, curl_sockaddr* address) {
  return static_cast<Transfer*>(self)->open_socket(*address);
}

template <typename Value>
void set(CURL* easy, CURLoption option, Value value) {
  const CURLcode code = curl().easy_setopt(easy, option, value);
  if (code != CURLE_OK) {
    throw Failure(ErrorCode::kInternal,
                  fmt::format("[download] libcurl option {}: {}", static_cast<int>(option),
                              curl().easy_strerror(code)));
  }
}

long whole_seconds(std::chrono::milliseconds time) {
  return std::max<long>(1, static_cast<long>((time.count() + 999) / 1000));
}

void set_options(Transfer& transfer) {
  CURL* easy = transfer.easy.get();
  const NetworkRules& rules = *transfer.rules;
  set(easy, CURLOPT_ERRORBUFFER, transfer.message.data());
  set(easy, CURLOPT_NOSIGNAL, 1L);
  set(easy, CURLOPT_URL, transfer.response.url.text().c_str());
  set(easy, CURLOPT_PATH_AS_IS, 1L);
  set(easy, CURLOPT_PROTOCOLS_STR, transfer.response.url.https ? "https" : "http");
  set(easy, CURLOPT_FOLLOWLOCATION, 0L);
  // HTTP/2 would carry all ranges over one connection, and so at one connection's speed.
  set(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));
  set(easy, CURLOPT_PROXY, "");
  set(easy, CURLOPT_USERAGENT, "limner/" LIMNER_VERSION);
  set(easy, CURLOPT_HTTPHEADER, transfer.header_lines.get());
  set(easy, CURLOPT_HTTP_CONTENT_DECODING, 0L);
  set(easy, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!rules.ca_file.empty()) set(easy, CURLOPT_CAINFO, rules.ca_file.c_str());
  set(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(rules.connect_timeout.count()));
  set(easy, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(rules.minimum_speed));
  set(easy, CURLOPT_LOW_SPEED_TIME, whole_seconds(rules.stall_timeout));
  set(easy, CURLOPT_BUFFERSIZE, kReadBytes);
  set(easy, CURLOPT_OPENSOCKETFUNCTION, on_socket);
  set(easy, CURLOPT_OPENSOCKETDATA, &transfer);
  set(easy, CURLOPT_HEADERFUNCTION, on_header);
  set(easy, CURLOPT_HEADERDATA, &transfer);
  set(easy, CURLOPT_WRITEFUNCTION, on_body);
  set(easy, CURLOPT_WRITEDATA, &transfer);
  set(easy, CURLOPT_PRIVATE, &transfer);
}

void set_method(Transfer& transfer, const Send& send) {
  CURL* easy = transfer.easy.get();
  if (send.method == "GET") return;
  if (send.method == "HEAD") {
    set(easy, CURLOPT_NOBODY, 1L);
    return;
  }
  if (send.method == "POST" || send.method == "PUT" || !send.body.empty()) {
    set(easy, CURLOPT_POST, 1L);
    set(easy, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(send.body.size()));
    set(easy, CURLOPT_POSTFIELDS,
        send.body.empty() ? "" : reinterpret_cast<const char*>(send.body.data()));
  }
  set(easy, CURLOPT_CUSTOMREQUEST, send.method.c_str());
}

std::string where(const Transfer& transfer) {
  return "[download] " + transfer.response.url.shown();
}

Error refused_address(const Transfer& transfer) {
  return {ErrorCode::kPermissionDenied, fmt::format("{}: the address of {} {}", where(transfer),
                                                    transfer.response.url.host, transfer.refused)};
}

Error error_of(const Transfer& transfer, CURLcode code) {
  if (!transfer.refused.empty() && code == CURLE_COULDNT_CONNECT) return refused_address(transfer);
  const std::string detail =
      transfer.message[0] != '\0' ? transfer.message.data() : curl().easy_strerror(code);
  const std::string message = fmt::format("{}: {}", where(transfer), detail);
  switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
      return {ErrorCode::kDeadlineExceeded, message, true};
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
      return {ErrorCode::kUnavailable, message, true};
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_ISSUER_ERROR:
      return {ErrorCode::kPermissionDenied,
              fmt::format("{}: its certificate is not trusted: {}", where(transfer), detail)};
    case CURLE_SSL_CACERT_BADFILE:
      return {ErrorCode::kIo, message};
    case CURLE_OUT_OF_MEMORY:
      return {ErrorCode::kOutOfMemory, message};
    default:
      return {ErrorCode::kUnavailable, message};
  }
}

std::exception_ptr failure_of(const Transfer& transfer, CURLcode code) {
  if (transfer.thrown) return transfer.thrown;
  if (transfer.enough || code == CURLE_OK) return nullptr;
  return std::make_exception_ptr(Failure(error_of(transfer, code)));
}

List appended(List list, const std::string& line) {
  curl_slist* longer = curl().slist_append(list.get(), line.c_str());
  LIMNER_CHECK(longer != nullptr, "curl_slist_append failed");
  static_cast<void>(list.release());
  return List(longer);
}

bool is_address(const std::string& host) {
  return host.starts_with('[') || parse_address(host).has_value();
}

// What the name's addresses are is settled here, for all of them and before any socket; curl does
// not look again. Throws Failure.
void settle_addresses(Transfer& transfer, const Result<std::vector<IpAddress>>& found) {
  if (!found.ok()) {
    Error error = found.error();
    error.message = where(transfer) + ": " + error.message;
    throw Failure(std::move(error));
  }
  const NetworkRules& rules = *transfer.rules;
  const Url& url = transfer.response.url;
  // "localhost" may be ::1 as well where 127.0.0.1 alone is allowed.
  const bool only_allowed =
      std::any_of(found->begin(), found->end(),
                  [&](const IpAddress& address) { return is_allowed(rules, address); });
  std::string list;
  for (const IpAddress& address : *found) {
    if (only_allowed && !is_allowed(rules, address)) continue;
    transfer.refused = refusal(rules, url, address);
    if (!transfer.refused.empty()) throw Failure(refused_address(transfer));
    const std::string text = to_string(address);
    if (!list.empty()) list += ',';
    list += address.v4 ? text : fmt::format("[{}]", text);
  }
  transfer.addresses = appended({}, fmt::format("{}:{}:{}", url.host, url.port, list));
  set(transfer.easy.get(), CURLOPT_RESOLVE, transfer.addresses.get());
}

}  // namespace

struct Transfers::State {
  const NetworkRules& rules;
  Multi multi;
  std::list<Transfer> running{};

  void remove(std::list<Transfer>::iterator transfer) {
    curl().multi_remove_handle(multi.get(), transfer->easy.get());
    running.erase(transfer);
  }

  void add(Transfer& transfer) {
    const CURLMcode code = curl().multi_add_handle(multi.get(), transfer.easy.get());
    LIMNER_CHECK(code == CURLM_OK, curl().multi_strerror(code));
  }

  // Hands transfers whose names are known to curl. Whether some are still waiting.
  bool take_names(std::vector<Outcome>& outcomes) {
    bool waiting = false;
    for (auto it = running.begin(); it != running.end();) {
      const auto transfer = it++;
      if (!transfer->lookup) continue;
      try {
        if (!transfer->lookup->ready()) {
          waiting = true;
          if (std::chrono::steady_clock::now() < transfer->lookup_end) continue;
          throw Failure({ErrorCode::kDeadlineExceeded,
                         where(*transfer) + ": looking up the address took too long", true});
        }
        settle_addresses(*transfer, transfer->lookup->take());
        transfer->lookup.reset();
        add(*transfer);
      } catch (const Failure&) {
        outcomes.push_back({transfer->receiver, std::current_exception()});
        running.erase(transfer);
      }
    }
    return waiting;
  }
};

Transfers::Transfers(const NetworkRules& rules) {
  state_ = std::make_unique<State>(State{rules, Multi(curl().multi_init())});
  LIMNER_CHECK(state_->multi != nullptr, "curl_multi_init failed");
}

Transfers::~Transfers() {
  while (!state_->running.empty()) state_->remove(state_->running.begin());
}

void Transfers::start(const Url& url, const std::vector<std::string>& headers, Receiver& receiver,
                      const Send& send) {
  Transfer& transfer = state_->running.emplace_back();
  try {
    transfer.easy.reset(curl().easy_init());
    LIMNER_CHECK(transfer.easy != nullptr, "curl_easy_init failed");
    for (const std::string& line : headers)
      transfer.header_lines = appended(std::move(transfer.header_lines), line);
    transfer.rules = &state_->rules;
    transfer.receiver = &receiver;
    transfer.response.url = url;
    set_options(transfer);
    set_method(transfer, send);
    if (is_address(url.host)) {
      state_->add(transfer);
    } else {
      transfer.lookup.emplace(state_->rules.look_up, url.host);
      transfer.lookup_end = std::chrono::steady_clock::now() + state_->rules.connect_timeout;
    }
  } catch (...) {
    state_->running.pop_back();
    throw;
  }
}

void Transfers::cancel(Receiver& receiver) {
  for (auto it = state_->running.begin(); it != state_->running.end(); ++it) {
    if (it->receiver != &receiver) continue;
    state_->remove(it);
    return;
  }
}

std::vector<Outcome> Transfers::run(std::chrono::milliseconds wait) {
  const auto end = std::chrono::steady_clock::now() + wait;
  std::vector<Outcome> outcomes;
  while (true) {
    const bool waiting = state_->take_names(outcomes);
    int still_running = 0;
    const CURLMcode code = curl().multi_perform(state_->multi.get(), &still_running);
    LIMNER_CHECK(code == CURLM_OK, curl().multi_strerror(code));
    int queued = 0;
    while (const CURLMsg* note = curl().multi_info_read(state_->multi.get(), &queued)) {
      if (note->msg != CURLMSG_DONE) continue;
      const CURLcode result = note->data.result;
      for (auto it = state_->running.begin(); it != state_->running.end(); ++it) {
        if (it->easy.get() != note->easy_handle) continue;
        outcomes.push_back({it->receiver, failure_of(*it, result)});
        state_->remove(it);
        break;
      }
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        end - std::chrono::steady_clock::now());
    if (!outcomes.empty() || left.count() <= 0) return outcomes;
    // No socket tells of a look-up's end.
    const auto poll = waiting ? std::min<long>(left.count(), 5) : left.count();
    curl().multi_poll(state_->multi.get(), nullptr, 0, static_cast<int>(poll), nullptr);
  }
}

}  // namespace limner::platform::http
