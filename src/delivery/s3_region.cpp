#include <string>
#include <string_view>

#include "delivery/s3_client.h"

namespace limner::delivery {

// [BUCKET.]s3.REGION.PROVIDER, of AWS also s3-REGION and s3.dualstack.REGION; of DigitalOcean
// [BUCKET.]REGION.PROVIDER.
std::string s3_region(const std::string& host) {
  constexpr std::string_view kProviders[] = {".amazonaws.com", ".backblazeb2.com", ".wasabisys.com",
                                             ".digitaloceanspaces.com"};
  for (const std::string_view provider : kProviders) {
    const auto end = host.find(provider);
    if (end == std::string::npos || end == 0) continue;
    const auto dot = host.rfind('.', end - 1);
    std::string region = host.substr(dot == std::string::npos ? 0 : dot + 1,
                                     end - (dot == std::string::npos ? 0 : dot + 1));
    if (region.starts_with("s3-")) region.erase(0, 3);
    if (region != "s3") return region;
  }
  return "us-east-1";
}

}  // namespace limner::delivery
