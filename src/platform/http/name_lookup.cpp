#include "platform/http/name_lookup.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/socket.h>

#include <memory>
#include <thread>

namespace limner::platform::http {

Result<std::vector<IpAddress>> system_look_up(const std::string& host) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_ADDRCONFIG;
  addrinfo* list = nullptr;
  const int code = getaddrinfo(host.c_str(), nullptr, &hints, &list);
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(list, &freeaddrinfo);
  std::vector<IpAddress> addresses;
  for (const addrinfo* entry = list; code == 0 && entry != nullptr; entry = entry->ai_next) {
    if (const auto address = from_socket(*entry->ai_addr)) addresses.push_back(*address);
  }
  if (!addresses.empty()) return addresses;
  return Error{ErrorCode::kUnavailable,
               fmt::format("Could not resolve host: {}{}", host,
                           code == 0 ? "" : fmt::format(" ({})", gai_strerror(code))),
               true};
}

NameLookup::NameLookup(LookUp look_up, std::string host) {
  std::packaged_task<Result<std::vector<IpAddress>>()> task(
      [look_up = std::move(look_up), host = std::move(host)] { return look_up(host); });
  answer_ = task.get_future();
  std::thread(std::move(task)).detach();
}

bool NameLookup::ready() const {
  return answer_.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace limner::platform::http
