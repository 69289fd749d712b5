// What a worker is handed: the rooms around it, and what the workers of a process share.
#pragma once

#include "base/log.h"
#include "delivery/store.h"
#include "engine/lora/adapter_hash.h"
#include "platform/clock.h"
#include "platform/metrics/metrics.h"
#include "platform/trace/tracer.h"
#include "queue/queue.h"
#include "worker/adapter_resolver.h"
#include "worker/catalog_builder.h"
#include "worker/model_breakers.h"
#include "worker/model_cache.h"

namespace limner::worker {

// All of it outlives the workers.
struct WorkerServices {
  queue::Queue& queue;
  delivery::ArtifactStore& store;
  CatalogBuilder& catalog;
  ModelCache models;
  AdapterResolver& adapters;
  ModelBreakers& breakers;
  engine::lora::AdapterHashes& hashes;
  platform::Metrics& metrics;
  Log& log;
  const platform::Clock& clock;
  platform::Tracer* tracer = nullptr;  // null: no spans
};

}  // namespace limner::worker
