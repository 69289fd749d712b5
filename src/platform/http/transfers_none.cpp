// A build without libcurl: everything else of this room works.
#include "platform/http/transfers.h"

namespace limner::platform::http {

struct Transfers::State {};

Transfers::Transfers(const NetworkRules&) {
  throw Failure(ErrorCode::kUnsupported,
                "[download] this limner was built without libcurl, so it cannot download; install "
                "libcurl4-openssl-dev and build again");
}

Transfers::~Transfers() = default;

void Transfers::start(const Url&, const std::vector<std::string>&, Receiver&, const Send&) {}

void Transfers::cancel(Receiver&) {}

std::vector<Outcome> Transfers::run(std::chrono::milliseconds) {
  return {};
}

}  // namespace limner::platform::http
