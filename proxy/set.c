/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/set.h"

#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What failed to listen, in the words that users of these modes know. */
static const char *failure(const struct mode *mode)
{
	if (mode->learn == LEARN_SOCKS5)
		return "";
	if (mode->from_vsock)
		return "Failed to bind listener to vsock: incorrect CID:port: ";
	return "Failed to bind listener: malformed listening address:port: ";
}

static void log_failure(const struct service_config *config, const char *why)
{
	char text[ENDPOINT_STRLEN];

	log_error("%s%s%scannot listen on %s: %s", config->where,
		config->where[0] ? ": " : "", failure(config->mode),
		endpoint_format(&config->listen, text, sizeof(text)), why);
}

bool service_set_has(
	const struct service_set *set, const struct entrance *entrance)
{
	for (size_t i = 0; i < set->nr; i++)
		if (set->service[i]->entrance == entrance)
			return true;
	return false;
}

/* The listener of @old on @ep that @set has not taken over yet, or NULL. */
static struct entrance *inherit(const struct service_set *set,
	const struct service_set *old, const struct endpoint *ep)
{
	for (size_t i = 0; old && i < old->nr; i++) {
		struct entrance *e = old->service[i]->entrance;

		if (endpoint_equal(&e->asked, ep) && !service_set_has(set, e) &&
			listener_is_reached(&e->listener))
			return e;
	}
	return NULL;
}

/**
 * struct plan - a set being made
 * @set:    so far
 * @config, @nr: what it shall have
 * @old:    the set that it follows, or NULL
 */
struct plan {
	struct service_set *set;
	struct service_config *config;
	size_t nr;
	const struct service_set *old;
};

/* Will @e, of the old set, be closed, and stands in the way of @config? */
static bool gives_way(const struct plan *plan, const struct entrance *e,
	const struct service_config *config)
{
	assert(e); /* every service has one */
	if (config->listen.kind != ENDPOINT_TCP || config->listen.port == 0 ||
		e->listener.ep.kind != ENDPOINT_TCP ||
		e->listener.ep.port != config->listen.port)
		return false;
	for (size_t i = 0; i < plan->nr; i++)
		if (endpoint_equal(&e->asked, &plan->config[i].listen))
			return false;
	return true;
}

/* Let the listeners that give way share their port, or not any more. */
static bool share_port(
	const struct plan *plan, const struct service_config *config, bool on)
{
	bool any = false;

	for (size_t i = 0; plan->old && i < plan->old->nr; i++) {
		const struct entrance *e = plan->old->service[i]->entrance;

		if (!gives_way(plan, e, config))
			continue;
		listener_share(&e->listener, on);
		any = true;
	}
	return any;
}

/* Return: NULL, and it is logged. */
static struct entrance *open_entrance(
	const struct plan *plan, const struct service_config *config)
{
	struct entrance *e = entrance_new(&config->listen);
	struct listener_options options = {.transparent = config->tproxy};
	const char *why = log_strerror(ENOMEM);

	if (e) {
		options.share = share_port(plan, config, true);
		why = listener_try(&e->listener, &config->listen, &options);
		if (options.share)
			share_port(plan, config, false);
	}
	if (!why) {
		if (options.share)
			listener_share(&e->listener, false);
		return e;
	}
	log_failure(config, why);
	if (e)
		entrance_free(e);
	return NULL;
}

/* Add the next service to the set. Return: 0, or -1 and it is logged. */
static int add_service(struct plan *plan)
{
	struct service_set *set = plan->set;
	struct service_config *config = &plan->config[set->nr];
	struct entrance *e = inherit(set, plan->old, &config->listen);
	struct service *service;
	int err;

	if (!e) {
		e = open_entrance(plan, config);
		if (!e)
			return -1;
	} else if (config->tproxy) {
		/* Of no consequence to the service that is there. */
		err = listener_transparent(&e->listener);
		if (err) {
			log_failure(config, log_strerror(err));
			return -1;
		}
	}
	service = service_new(config, e);
	if (!service) {
		log_failure(config, log_strerror(ENOMEM));
		if (atomic_load(&e->refs) == 0)
			entrance_free(e);
		return -1;
	}
	set->service[set->nr++] = service;
	return 0;
}

struct service_set *service_set_open(
	struct service_config *config, size_t nr, const struct service_set *old)
{
	struct service_set *set =
		calloc(1, sizeof(*set) + nr * sizeof(struct service *));
	struct plan plan = {set, config, nr, old};

	assert(nr > 0 && nr <= SET_MAX);
	if (!set) {
		log_error("cannot serve: %s", log_strerror(ENOMEM));
		return NULL;
	}
	while (set->nr < nr)
		if (add_service(&plan) == -1)
			goto fail;
	return set;
fail:
	/* The sockets that are the old set's stay open. */
	service_set_retire(set, old);
	return NULL;
}

void service_set_retire(struct service_set *set, const struct service_set *next)
{
	for (size_t i = 0; i < set->nr; i++) {
		struct service *s = set->service[i];

		if (!next || !service_set_has(next, s->entrance))
			listener_close(&s->entrance->listener);
		service_unref(s);
	}
	free(set);
}

void service_set_close(struct service_set *set)
{
	for (size_t i = 0; i < set->nr; i++)
		listener_close(&set->service[i]->entrance->listener);
}
