#include "gateway/http/message.h"
