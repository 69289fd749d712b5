// Texts that change while the picture is drawn, in A1111's syntax: [from:to:when] and [a|b].
#pragma once

#include <cstdint>
#include <functional>

#include "prompt/source_text.h"

namespace limner::prompt {

// Calls span(last, text) for each span of steps, in order: the last step it holds for (counted from
// 1; the last span's is `steps`), and the text with its schedules resolved. `when` with a point is
// a fraction of `steps`, without one a step; up to and with it stands `from`, after it `to`;
// [to:when] has nothing before, [from::when] nothing after. [a|b|c] takes turns, one a step. They
// nest. Brackets of any other form stay as they are. Throws SyntaxError.
void resolve_a1111_schedule(
    const SourceText& text, std::int64_t steps,
    const std::function<void(std::int64_t last, const SourceText& text)>& span);

}  // namespace limner::prompt
