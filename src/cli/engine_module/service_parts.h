// The parts of a service that its configuration chooses: each function makes one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "base/error.h"
#include "delivery/file_system.h"
#include "delivery/s3_client.h"
#include "delivery/signed_url.h"
#include "delivery/store.h"
#include "delivery/supabase_client.h"
#include "delivery/sweeper.h"
#include "engine/engine.h"
#include "gateway/http/server.h"
#include "platform/clock.h"
#include "platform/config/service_config.h"
#include "platform/http/exchange.h"
#include "queue/queue.h"

namespace limner::cli {

// Signs the URLs under /v1/artifacts with the key in `file` (0600, "ID SECRET" in base64); made at
// the first start, so that URLs outlive a restart.
Result<delivery::UrlSigner> open_signer(const std::filesystem::path& file);

queue::TierRules tier_rules(const platform::QueueConfig& config);
Result<std::unique_ptr<queue::Policy>> make_policy(const platform::QueueConfig& config);
queue::QueueOptions queue_options(const platform::QueueConfig& config);
delivery::Lifetimes lifetimes(const platform::RetentionConfig& config);

// One that nobody listens on at this moment. Errors: kInvalidArgument for a host that is no address
// of this machine.
Result<std::uint16_t> free_port(const std::string& host);
gateway::http::ServerOptions server_options(const platform::ServerConfig& config);
Result<engine::Composition> composition(const platform::EngineConfig& config);

// Where pictures go. The store on disk when the configuration says so, else a bucket's.
struct ArtifactStores {
  std::unique_ptr<delivery::FileSystem> files;  // that `store` stands on, where it is on disk
  std::unique_ptr<delivery::S3Client> s3;       // and where it is S3
  std::unique_ptr<delivery::SupabaseClient> supabase;  // and where it is Supabase
  std::unique_ptr<delivery::ArtifactStore> store;
};
struct ArtifactPlace {
  std::filesystem::path folder;  // of the store on disk
  std::string public_url;        // before the paths of its URLs
  const delivery::UrlSigner& signer;
  platform::http::Exchange& exchange;  // for a bucket: whom the operator named is trusted
  const platform::Clock& clock;
};
Result<ArtifactStores> open_artifacts(const platform::DeliveryConfig& config,
                                      const ArtifactPlace& place);

}  // namespace limner::cli
