// Deleted pictures: what erased generations showed leaves the artifact store. That it has to is
// kept in the queue's store (queue::Removal), written with the erasure, so that neither a crash nor
// a store that does not answer forgets it.
#pragma once

#include <cstddef>
#include <stop_token>
#include <string>

#include "base/error.h"
#include "delivery/store.h"
#include "queue/store.h"

namespace limner::gateway {

// Sees to the removals of one job, or of all (""). Names are made of content, and the same request
// drawn twice has the same bytes: an object that another job of the account shows stays, and one
// that a running job may have stored, and be about to show, waits until that job has ended. How
// many wait. Errors: those of the stores; what is left is seen to the next time.
Result<std::size_t> remove_deleted_pictures(queue::Store& jobs, delivery::ArtifactStore& artifacts,
                                            const std::string& job_id = "",
                                            const std::stop_token& stop = {});

}  // namespace limner::gateway
