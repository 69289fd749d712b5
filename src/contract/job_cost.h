// What a request costs, in the words that the queue learns from: its class and its work. The
// gateway fills a job with both; the worker measures the seconds.
#pragma once

#include <string>
#include <string_view>

#include "contract/validate.h"

namespace limner::contract {

// "miniature/16384": the model, and the pixels of one picture rounded up to a power of two. Jobs of
// a class take the same time per unit of work, within what attention's growth with the size allows;
// a client's free choice of sizes makes few classes.
std::string job_class(std::string_view model, const ValidRequest& request);

// Pixels x steps x images, twice that where guidance adds a row for the negative prompt. Above 0.
double job_work(const ValidRequest& request);

}  // namespace limner::contract
