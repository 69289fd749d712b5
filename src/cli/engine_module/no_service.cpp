// Stands in for serve.cpp and runpod.cpp in a build without what a service needs.
#include "cli/engine_module/commands.h"

namespace limner::cli {

namespace {

int no_service(const Console& console) {
  return console.fail({ErrorCode::kUnsupported,
                       "this limner was built without a service: install libsoci-dev, "
                       "libboost1.81-dev, libssl-dev and libcurl4-openssl-dev, and build again"});
}

}  // namespace

int serve(const ConfigOptions&, const Console& console) {
  return no_service(console);
}

int runpod(const RunpodOptions&, const Console& console) {
  return no_service(console);
}

}  // namespace limner::cli
