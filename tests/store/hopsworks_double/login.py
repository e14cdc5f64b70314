"""Login, the project and the feature store itself, over REST."""

from __future__ import annotations

import base64
from typing import Any

from .cluster import Refused
from .routes import HERE, PROJECT, STORE, Asked, route


@route('GET', '/hopsworks-api/api/variables/versions')
def versions(asked: Asked) -> Any:
    return [{'software': 'hopsworks', 'version': '5.2.1'}]


@route('GET', '/hopsworks-api/api/variables/(?P<name>[a-z_]+)')
def variable(asked: Asked, name: str) -> Any:
    known = {
        'service_discovery_domain': asked.cluster.domain,
        'enable_flyingduck': 'true',
        'loadbalancer_external_domain_feature_query': 'localhost',
        'loadbalancer_external_domain_online_store_rest_server': 'localhost',
    }
    if name not in known:
        raise Refused(501, 0, f'unknown variable {name}')
    return {'successMessage': known[name]}


@route('GET', '/hopsworks-api/api/project/getProjectInfo/(?P<name>[^/]+)')
def project_info(asked: Asked, name: str) -> Any:
    if name != asked.cluster.project:
        raise Refused(404, 150004, f'no project {name}')
    return {
        'projectId': PROJECT,
        'projectName': name,
        'owner': 'double',
        'description': '',
        'created': '2026-01-01T00:00:00Z',
    }


@route('GET', '/hopsworks-api/api/project')
def projects(asked: Asked) -> Any:
    return [{'user': {'username': 'double000'}, 'project': {'name': asked.cluster.project}}]


@route('GET', f'{HERE}/credentials')
def credentials(asked: Asked) -> Any:
    store = base64.b64encode(b'no java key store here').decode()
    made = asked.certificates
    return {
        'kStore': store,
        'tStore': store,
        'password': 'double',
        'caChain': made.authority.decode(),
        'clientCert': made.client.certificate.decode(),
        'clientKey': made.client.key.decode(),
    }


@route('GET', f'{HERE}/featurestores')
def feature_stores(asked: Asked) -> Any:
    return [feature_store(asked, str(STORE))]


@route('GET', f'{HERE}/featurestores/(?P<name>[^/]+)')
def feature_store(asked: Asked, name: str) -> Any:
    if name not in (f'{asked.cluster.project}_featurestore', str(STORE)):
        raise Refused(404, 270012, f'no feature store {name}')
    return {
        'featurestoreId': STORE,
        'featurestoreName': f'{asked.cluster.project}_featurestore',
        'created': '2026-01-01T00:00:00Z',
        'projectName': asked.cluster.project,
        'projectId': PROJECT,
        'offlineFeaturestoreName': f'{asked.cluster.project}_featurestore',
        'onlineFeaturestoreName': asked.cluster.project,
        'onlineEnabled': True,
        'numFeatureGroups': len(asked.cluster.groups),
        'numTrainingDatasets': 0,
        'numStorageConnectors': 1,
        'numFeatureViews': len(asked.cluster.views),
    }
