#include "cli/engine_module/service_parts.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <fstream>

#include "base/atomic_file.h"
#include "delivery/crypto.h"
#include "delivery/file_system.h"
#include "delivery/local_store.h"
#include "delivery/s3_store.h"
#include "delivery/store_settings.h"
#include "delivery/supabase_store.h"

namespace limner::cli {
namespace {

constexpr std::size_t kSecretBytes = 32;

delivery::SigningKey read_key(const std::filesystem::path& file) {
  std::ifstream stream(file);
  std::string id, secret, more;
  stream >> id >> secret;
  const auto bytes = delivery::from_base64(secret);
  if (stream.fail() || (stream >> more) || !bytes || bytes->size() < kSecretBytes) {
    throw Failure(ErrorCode::kIo,
                  fmt::format("{} is not a signing key (want \"ID SECRET\", the secret 32 bytes in "
                              "base64); remove it to have a new one made, which ends the URLs that "
                              "were signed with it",
                              file.string()));
  }
  return {.id = id, .secret = *bytes};
}

// Nobody but the service's user may read it, from the first moment on.
void make_key(const std::filesystem::path& file) {
  const std::string id = delivery::base64_url(delivery::random_bytes(6));
  const std::string secret = delivery::base64(delivery::random_bytes(kSecretBytes));
  const mode_t before = umask(0077);
  try {
    write_atomically(file, fmt::format("{} {}\n", id, secret));
  } catch (...) {
    umask(before);
    throw;
  }
  umask(before);
}

template <typename Duration>
std::optional<std::chrono::seconds> or_for_ever(Duration days) {
  if (days.count() == 0) return std::nullopt;
  return std::chrono::seconds(days);
}

Result<ArtifactStores> open_s3(const platform::DeliveryConfig& config, const ArtifactPlace& place) {
  const auto options = delivery::s3_options(config);
  if (!options.ok()) return options.error();
  auto client = delivery::S3Client::make(*options, place.exchange, place.clock);
  if (!client.ok()) return client.error();
  if (const auto checked = (*client)->check_bucket(); !checked.ok()) return checked.error();
  ArtifactStores stores;
  stores.s3 = std::move(*client);
  stores.store = std::make_unique<delivery::S3Store>(*stores.s3, config.prefix);
  return stores;
}

Result<ArtifactStores> open_supabase(const platform::DeliveryConfig& config,
                                     const ArtifactPlace& place) {
  auto client = delivery::SupabaseClient::make(delivery::supabase_options(config), place.exchange,
                                               place.clock);
  if (!client.ok()) return client.error();
  if (const auto checked = (*client)->check_bucket(); !checked.ok()) return checked.error();
  ArtifactStores stores;
  stores.supabase = std::move(*client);
  stores.store = std::make_unique<delivery::SupabaseStore>(*stores.supabase, config.prefix);
  return stores;
}

}  // namespace

Result<delivery::UrlSigner> open_signer(const std::filesystem::path& file) {
  try {
    if (!std::filesystem::exists(file)) make_key(file);
    return delivery::UrlSigner::make(read_key(file));
  } catch (const Failure& failure) {
    return failure.error();
  } catch (const std::filesystem::filesystem_error& error) {
    return Error{ErrorCode::kIo, error.what()};
  }
}

queue::TierRules tier_rules(const platform::QueueConfig& config) {
  queue::TierRules rules;
  rules.reserved = config.reserved_share;
  const std::array<const platform::TierConfig*, contract::kTierCount> tiers = {
      &config.turbo, &config.fast, &config.relax};
  for (std::size_t tier = 0; tier < tiers.size(); ++tier) {
    rules.weights[tier] = tiers[tier]->weight;
    rules.longest_wait[tier] = tiers[tier]->longest_wait;
  }
  return rules;
}

Result<std::unique_ptr<queue::Policy>> make_policy(const platform::QueueConfig& config) {
  std::uint64_t seed = 0;
  for (const std::uint8_t byte : delivery::random_bytes(8)) seed = seed << 8 | byte;
  return queue::make_policy(config.policy, seed, tier_rules(config));
}

queue::QueueOptions queue_options(const platform::QueueConfig& config) {
  queue::QueueOptions options;
  options.limits.most_waiting = {static_cast<std::size_t>(config.turbo.most_waiting),
                                 static_cast<std::size_t>(config.fast.most_waiting),
                                 static_cast<std::size_t>(config.relax.most_waiting)};
  options.limits.most_per_account = static_cast<std::size_t>(config.most_waiting_per_account);
  options.rules = tier_rules(config);
  options.lease = config.lease;
  options.most_crashes = static_cast<int>(config.most_crashes);
  options.most_failures = static_cast<int>(config.most_failures);
  return options;
}

delivery::Lifetimes lifetimes(const platform::RetentionConfig& config) {
  delivery::Lifetimes lifetimes;
  lifetimes.hot = or_for_ever(config.hot);
  lifetimes.warm = or_for_ever(config.warm);
  lifetimes.cold = or_for_ever(config.cold);
  return lifetimes;
}

Result<std::uint16_t> free_port(const std::string& host) {
  namespace asio = boost::asio;
  boost::system::error_code error;
  const auto address = asio::ip::make_address(host, error);
  if (!error) {
    asio::io_context context;
    asio::ip::tcp::acceptor acceptor(context);
    const asio::ip::tcp::endpoint any(address, 0);
    if (!acceptor.open(any.protocol(), error) && !acceptor.bind(any, error)) {
      return acceptor.local_endpoint().port();
    }
  }
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("server.host \"{}\": want an address of this machine ({})", host,
                           error.message())};
}

gateway::http::ServerOptions server_options(const platform::ServerConfig& config) {
  gateway::http::ServerOptions options;
  options.address = config.host;
  options.port = static_cast<std::uint16_t>(config.port);
  options.certificate = config.tls_certificate;
  options.private_key = config.tls_key;
  options.body_limit = config.body_limit.count;
  options.connections = static_cast<std::size_t>(config.most_connections);
  options.connections_per_address = static_cast<std::size_t>(config.most_connections_per_address);
  return options;
}

Result<engine::Composition> composition(const platform::EngineConfig& config) {
  const auto precision = engine::precision_from_name(config.dtype);
  if (!precision.ok()) return precision.error();
  const auto offload = engine::offload_from_name(config.offload);
  if (!offload.ok()) return offload.error();
  engine::Composition composition;
  composition.precision = *precision;
  composition.offload = *offload;
  composition.device = config.device;
  return composition;
}

Result<ArtifactStores> open_artifacts(const platform::DeliveryConfig& config,
                                      const ArtifactPlace& place) {
  if (config.store == "s3") return open_s3(config, place);
  if (config.store == "supabase") return open_supabase(config, place);
  ArtifactStores stores;
  stores.files = std::make_unique<delivery::PosixFileSystem>();
  auto store = delivery::LocalStore::open(place.folder, place.public_url, place.signer,
                                          *stores.files, place.clock);
  if (!store.ok()) return store.error();
  stores.store = std::move(*store);
  return stores;
}

}  // namespace limner::cli
