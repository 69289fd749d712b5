// UniPC: unified predictor-corrector with B(h), orders 1 to 3 (Zhao et al. 2023).
#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "engine/samplers/factories.h"
#include "engine/samplers/solver_schedule.h"

namespace limner::engine::samplers {
namespace {

// Solves the `n` by `n` system in place by elimination with row exchange.
using Row = std::array<double, 4>;  // up to three coefficients and the right side
void solve(std::array<Row, 3>& rows, std::size_t n, std::array<double, 3>& x) {
  for (std::size_t column = 0; column < n; ++column) {
    std::size_t best = column;
    for (std::size_t r = column + 1; r < n; ++r) {
      if (std::abs(rows[r][column]) > std::abs(rows[best][column])) best = r;
    }
    std::swap(rows[column], rows[best]);
    for (std::size_t r = 0; r < n; ++r) {
      if (r == column) continue;
      const double factor = rows[r][column] / rows[column][column];
      for (std::size_t k = column; k < 4; ++k) rows[r][k] -= factor * rows[column][k];
    }
  }
  for (std::size_t r = 0; r < n; ++r) x[r] = rows[r][3] / rows[r][r];
}

std::vector<double> unipc_flow_sigmas(const Settings& settings, const SamplerRequest& request) {
  std::vector<double> sigmas = request.sigmas;
  if (sigmas.empty()) {
    sigmas = linspace(1.0, 1.0 / settings.num_train_timesteps, request.steps + 1);
    sigmas.pop_back();
  }
  const double shift = flow_shift(settings, request.image_tokens, settings.flow_shift);
  for (double& sigma : sigmas) sigma = shift_flow_sigma(shift, sigma);
  if (settings.shift_terminal > 0.0) stretch_to_terminal(sigmas, settings.shift_terminal);
  constexpr double kMargin = 1e-6;  // at sigma 1 alpha would be 0
  if (std::abs(sigmas.front() - 1.0) < kMargin) sigmas.front() -= kMargin;
  return sigmas;
}

// History: tensors are the sample of the last step and then the latest converted outputs, newest
// last; the counter is the number of steps taken since the start, up to solver_order.
class UniPc final : public Sampler {
 public:
  UniPc(const Settings& settings, const SamplerRequest& request)
      : settings_(settings), flow_(settings.curve == Curve::kFlow), order_(settings.solver_order) {
    const NoiseSchedule noise = make_noise_schedule(settings, /*finite_sigmas=*/true);
    if (flow_) {
      sigmas_ = unipc_flow_sigmas(settings, request);
      timesteps_ = sigmas_;
      for (double& t : timesteps_) t = std::trunc(t * settings.num_train_timesteps);
      sigmas_.push_back(settings.final_sigma_zero ? 0.0 : sigmas_.back());
      round_to_float(sigmas_);
      check_falling(sigmas_);
      return;
    }
    SolverScheduleOptions options;
    options.repeat_last_sigma = true;
    SolverSchedule schedule = solver_schedule(settings, noise, request, options);
    timesteps_ = std::move(schedule.timesteps);
    sigmas_ = std::move(schedule.sigmas);
  }

  at::Tensor add_noise(const at::Tensor& sample, const at::Tensor& noise,
                       std::size_t position) const override {
    const SolverPoint at = solver_point(sigmas_.at(position), flow_);
    return sample * at.alpha + noise * at.sigma;
  }

 protected:
  at::Tensor advance(const at::Tensor& model_output, const at::Tensor& sample, Noise&) override {
    const std::size_t i = history_.position;
    const at::Tensor converted = solver_output(settings_, settings_.predict_x0, model_output,
                                               sample, solver_point(sigmas_[i], flow_));
    at::Tensor corrected = sample;
    if (corrects(i)) {
      corrected = move(history_.tensors[0], i - 1, order_at(i - 1, history_.counter), &converted);
    }
    if (history_.tensors.empty()) history_.tensors.resize(1);
    history_.tensors[0] = corrected;
    history_.tensors.push_back(converted);
    if (history_.tensors.size() > static_cast<std::size_t>(order_) + 1) {
      history_.tensors.erase(history_.tensors.begin() + 1);
    }
    const std::size_t order = order_at(i, history_.counter + 1);
    history_.counter = std::min<std::int64_t>(history_.counter + 1, order_);
    return move(corrected, i, order, nullptr);
  }

 private:
  bool corrects(std::size_t i) const {
    const std::vector<std::int64_t>& off = settings_.disable_corrector;
    return i > 0 && !history_.tensors.empty() &&
           std::find(off.begin(), off.end(), static_cast<std::int64_t>(i) - 1) == off.end();
  }

  // Of the step at `i` when `known` outputs are at hand.
  std::size_t order_at(std::size_t i, std::int64_t known) const {
    std::int64_t order = order_;
    if (settings_.lower_order_final) {
      order = std::min(order, static_cast<std::int64_t>(timesteps_.size() - i));
    }
    return static_cast<std::size_t>(std::min(order, known));
  }

  const at::Tensor& output(std::size_t age) const {
    return history_.tensors.at(history_.tensors.size() - 1 - age);
  }

  double lambda(std::size_t i) const { return solver_point(sigmas_[i], flow_).lambda; }

  // Weights of the differences: solutions of eq. 7 of the paper; the corrector has one difference
  // more.
  std::array<double, 3> weights(const std::array<double, 3>& ratios, std::size_t order, double hh,
                                double b_of_h, bool corrector) const {
    std::array<double, 3> result = {0.5, 0.0, 0.0};
    const std::size_t unknowns = corrector ? order : order - 1;
    if (unknowns == 0 || (unknowns == 1 && order <= 2)) return result;
    std::array<Row, 3> rows{};
    double phi = std::expm1(hh) / hh - 1.0;
    double factorial = 1.0;
    for (std::size_t r = 0; r < order; ++r) {
      for (std::size_t k = 0; k < unknowns; ++k) {
        rows[r][k] = std::pow(ratios[k], static_cast<double>(r));
      }
      rows[r][3] = phi * factorial / b_of_h;
      factorial *= static_cast<double>(r) + 2.0;
      phi = phi / hh - 1.0 / factorial;
    }
    solve(rows, unknowns, result);
    return result;
  }

  // From position `from` to the next one; with `arrived`, the output found there, as the corrector.
  at::Tensor move(const at::Tensor& sample, std::size_t from, std::size_t order,
                  const at::Tensor* arrived) const {
    const SolverPoint s = solver_point(sigmas_[from], flow_);
    const SolverPoint t = solver_point(sigmas_[from + 1], flow_);
    const double h = t.lambda - s.lambda;
    const double hh = settings_.predict_x0 ? -h : h;
    const double grown = std::expm1(hh);
    const double b_of_h = settings_.solver_type == "bh1" ? hh : grown;
    const double scale = settings_.predict_x0 ? t.alpha : t.sigma;
    const double keep = settings_.predict_x0 ? t.sigma / s.sigma : t.alpha / s.alpha;
    const at::Tensor& m0 = output(0);
    at::Tensor next = sample * keep - m0 * (scale * grown);
    std::array<double, 3> ratios{};
    for (std::size_t k = 1; k < order; ++k) ratios[k - 1] = (lambda(from - k) - s.lambda) / h;
    ratios[order - 1] = 1.0;
    const std::array<double, 3> rho = weights(ratios, order, hh, b_of_h, arrived != nullptr);
    for (std::size_t k = 1; k < order; ++k) {
      next = next - (output(k) - m0) * (scale * b_of_h * rho[k - 1] / ratios[k - 1]);
    }
    if (arrived) next = next - (*arrived - m0) * (scale * b_of_h * rho[order - 1]);
    return next;
  }

  const Settings settings_;
  const bool flow_;
  const std::int64_t order_;
};

}  // namespace

SamplerPtr make_unipc(const Settings& settings, const SamplerRequest& request) {
  if (settings.final_sigma_zero && !settings.lower_order_final && settings.solver_order > 1) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] unipc with final_sigmas_type 'zero' wants lower_order_final true");
  }
  if (!settings.predict_x0 && settings.final_sigma_zero) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] unipc with predict_x0 false wants final_sigmas_type 'sigma_min'");
  }
  if (settings.shift_terminal > 0.0 && settings.curve != Curve::kFlow) {
    throw Failure(ErrorCode::kInvalidModel,
                  "[sampler] unipc wants use_flow_sigmas for shift_terminal");
  }
  return std::make_unique<UniPc>(settings, request);
}

}  // namespace limner::engine::samplers
