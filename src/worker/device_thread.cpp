#include "worker/device_thread.h"

#include <fmt/format.h>

namespace limner::worker {

void DeviceThread::run() {
  engine::set_threads(device_->options.threads);
  preload();
  draw_jobs();
  device_->tether.call([](Worker& worker) { worker.finished(); });
}

void DeviceThread::draw_jobs() {
  for (;;) {
    std::shared_ptr<Assignment> job;
    if (!device_->tether.call([&](Worker& worker) { job = worker.next(); }) || !job) return;
    const Result<DrawingReport> drawn = draw_job(job);
    if (!device_->tether.call([&](Worker& worker) { worker.ended(job, drawn); })) return;
  }
}

// What cannot be loaded is told of; the first job that wants it is told so, too.
void DeviceThread::preload() {
  for (const std::string& model : device_->options.preload) {
    std::optional<ModelPlace> place;
    std::shared_ptr<const contract::Catalog> catalog;
    std::stop_token stop;
    const bool there = device_->tether.call([&](Worker& worker) {
      place = worker.services_.catalog.place(model);
      catalog = worker.services_.catalog.catalog();
      stop = worker.hand_back_.get_token();
      if (place) worker.enter(WorkerState::kLoadingModel, fmt::format("model {}", model));
    });
    if (!there) return;
    std::optional<std::string> problem;
    if (!place) problem.emplace("there is no such model");
    if (place) {
      device_->pulse.expect(device_->options.patience.load);
      const auto lease = device_->models.acquire(*place, *catalog, {}, stop);
      device_->pulse.rest();
      if (!lease.ok()) problem = lease.error().message;
      device_->tether.call([&](Worker& worker) {
        if (lease.ok() && lease->load_seconds()) worker.loaded(model, *lease->load_seconds());
      });
    }
    device_->tether.call([&](Worker& worker) {
      if (!problem) return;
      worker.services_.log.error("a model could not be loaded ahead",
                                 {{"model", model}, {"error", *problem}});
    });
  }
  device_->tether.call([](Worker& worker) { worker.enter(WorkerState::kIdle, "started"); });
}

DrawingHooks DeviceThread::hooks(const std::shared_ptr<Assignment>& job) {
  Tether& tether = device_->tether;
  DrawingHooks hooks;
  hooks.enter = [&tether](WorkerState state, const std::string& reason) {
    tether.call([&](Worker& worker) { worker.enter(state, reason); });
  };
  hooks.stopped = [&tether, job] {
    return job->stop.stop_requested() || job->over || !tether.call([](Worker&) {});
  };
  hooks.loaded = [&tether, job](double seconds) {
    tether.call([&](Worker& worker) { worker.loaded(job->place.name, seconds); });
  };
  hooks.stepped = [&tether, job](std::int64_t step, std::int64_t steps, double seconds,
                                 std::size_t pictures) {
    tether.call([&](Worker& worker) {
      worker.services_.metrics.denoise_step(job->place.name, seconds);
      worker.services_.metrics.batch_size(pictures);
      worker.stepped(*job, step, steps);
    });
  };
  hooks.wants_preview = [&tether] {
    bool wanted = false;
    tether.call([&](Worker& worker) { wanted = worker.wants_preview(); });
    return wanted;
  };
  hooks.preview = [&tether, job](image::Bitmap bitmap) {
    tether.call([&](Worker& worker) { worker.post_.preview(job, std::move(bitmap)); });
  };
  hooks.drawn = [&tether, job](DrawnPicture picture) {
    tether.call([&](Worker& worker) { worker.post_.picture(job, std::move(picture)); });
  };
  hooks.timed = [&tether, job](std::string_view stage, double milliseconds) {
    tether.call([&](Worker& worker) { worker.timed(*job, stage, milliseconds); });
  };
  hooks.at = device_->options.at;
  return hooks;
}

Result<DrawingReport> DeviceThread::draw_job(const std::shared_ptr<Assignment>& job) {
  DrawingOrder order;
  order.request = job->request;
  order.place = job->place;
  order.catalog = job->catalog;
  order.adapters = job->adapters;
  order.most_batch = device_->options.most_batch;
  order.patience = device_->options.patience;
  return draw(order, device_->models, device_->pulse, hooks(job), job->stop.get_token());
}

}  // namespace limner::worker
