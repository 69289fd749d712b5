// Error and Result: how a failure crosses a room's border.
#pragma once

#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "base/check.h"

namespace limner {

// A closed, protocol-neutral list. One table per protocol (exit codes, HTTP) maps it outwards.
enum class ErrorCode {
  kInvalidArgument,   // a field of the request is wrong
  kNotFound,          // a named thing (model, file, sampler) is not there
  kInvalidModel,      // a model file or config is broken, or not what it says it is
  kUnsupported,       // well-formed, but this build or machine cannot do it
  kOutOfMemory,       // the work does not fit; the message says what would
  kIo,                // reading or writing failed (disk full, no permission)
  kCancelled,         // the caller asked to stop
  kDeadlineExceeded,  // the time allowed ran out
  kUnavailable,       // overloaded or not ready: trying again later may help
  kBlocked,           // refused by a safety rule
  kUnauthenticated,   // who asks is not known
  kPermissionDenied,  // who asks may not
  kInternal,          // our own mistake
};

// The code's stable name in snake_case, e.g. "invalid_argument".
std::string_view name(ErrorCode code);

// One clear sentence: where, what was wanted, what came. `[vae.decode] want 4 latent channels, got
// 16`.
struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  bool retryable = false;
};

// Carries an Error through the inside of a room. It never crosses a room's border: the front door
// turns it into a Result.
class Failure : public std::runtime_error {
 public:
  explicit Failure(Error error) : std::runtime_error(error.message), error_(std::move(error)) {}
  Failure(ErrorCode code, std::string message) : Failure(Error{code, std::move(message)}) {}
  const Error& error() const { return error_; }

 private:
  Error error_;
};

// A value of T or an Error. Reading the side that is not there is a programming mistake and aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  T& value() & {
    LIMNER_CHECK(ok(), error().message);
    return std::get<0>(state_);
  }
  const T& value() const& {
    LIMNER_CHECK(ok(), error().message);
    return std::get<0>(state_);
  }
  T&& value() && {
    LIMNER_CHECK(ok(), error().message);
    return std::get<0>(std::move(state_));
  }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }

  const Error& error() const {
    LIMNER_CHECK(!ok(), "Result holds a value");
    return std::get<1>(state_);
  }

  // Inside a room only: the value, or its Error thrown as a Failure.
  T value_or_throw() && {
    if (!ok()) throw Failure(error());
    return std::get<0>(std::move(state_));
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}
  bool ok() const { return !error_; }
  explicit operator bool() const { return ok(); }
  const Error& error() const {
    LIMNER_CHECK(error_.has_value(), "Result holds a value");
    return *error_;
  }
  void value_or_throw() const {
    if (error_) throw Failure(*error_);
  }

 private:
  std::optional<Error> error_;
};

}  // namespace limner
